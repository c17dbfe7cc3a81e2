"""Our towers embed as open_clip's do, full-size, on its own random weights (`make test-peers`)."""

import subprocess
from pathlib import Path

import pytest

from pixclip.config import ARCHITECTURES, ClipTextConfig
from tests.peers.comparison import largest_difference

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SCRIPT = Path(__file__).with_name("open_clip_peers.py")
VIT = ARCHITECTURES["clip_vit_b16"]
QUICK = ClipTextConfig(vocab_size=20, end_token_id=19)
GELU = QUICK.changed(activation="gelu")
MODELS = {
    "ViT-B-16-quickgelu": (VIT, QUICK, "open_clip"),
    "ViT-B-16": (VIT.changed(activation="gelu"), GELU, "open_clip"),
    "EVA02-B-16": (ARCHITECTURES["eva02_b16"], GELU, "timm"),
}

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not PYTHON.exists(), reason="`make test-peers` installs open_clip"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    subprocess.run([str(PYTHON), str(SCRIPT), "--into", str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_of_images_and_texts_equal_those_of_open_clip(name, written, tmp_path):
    vision, text, format_name = MODELS[name]
    file = written / f"{name}.safetensors"
    assert largest_difference(file, vision, format_name, tmp_path, text) < 1e-5


def test_quick_gelu_is_told_from_gelu(written, tmp_path):
    file = written / "ViT-B-16-quickgelu.safetensors"
    wrong = VIT.changed(activation="gelu")
    assert largest_difference(file, wrong, "open_clip", tmp_path) > 1e-3
