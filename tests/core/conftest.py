"""A run's folder with an artifact that a step of a test reads."""

from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a parent."""
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "weights").write_text("w")
    return tmp_path
