"""A checkpoint of a tiny model with its text tower."""

from pathlib import Path

import pytest

from pixclip.checkpoint import save_checkpoint
from tests.pixclip.tiny_models import save_tiny_text_tower, tiny_model


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory) -> Path:
    return save_tiny_text_tower(tmp_path_factory.mktemp("text") / "text_tower")


@pytest.fixture
def folder(tmp_path, text_tower) -> Path:
    save_checkpoint(
        tmp_path / "saved", tiny_model(), text_tower=text_tower, notes={"recipe": "tiny"}
    )
    return tmp_path / "saved"
