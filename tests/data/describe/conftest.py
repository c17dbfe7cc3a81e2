"""What the tests of `describe` share; `llm_server` and `describe_world` are imported by name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from describe_world import World, make_world
from llm_server import LlmServer


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server that answers well until `server.fault` is set."""
    with LlmServer() as running:
        yield running


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two images with two regions each."""
    return make_world(tmp_path)
