"""Small models of open_clip and timm, with their embeddings, are in `golden/`: ours are equal.

`open_clip_peers.py` of tests/peers wrote them, so that the peers' arithmetic is checked where the
peers are not installed.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixclip.config import ClipTextConfig
from pixclip.importers import WeightsRefused, import_weights
from tests.peers.comparison import largest_difference
from tests.pixclip.importers.conftest import CLIP, EVA02, build

GOLDEN = Path(__file__).with_name("golden")
SMALL = {"width": 32, "num_heads": 2}
VIT = CLIP.changed(**SMALL, mlp_width=128)
TEXT = ClipTextConfig(
    context_length=8,
    vocab_size=20,
    width=8,
    num_heads=1,
    num_layers=1,
    mlp_width=32,
    end_token_id=19,
)
MODELS = {
    "vit_quick_gelu": (VIT, "open_clip"),
    "vit_gelu": (VIT.changed(activation="gelu"), "open_clip"),
    "eva02": (EVA02.changed(**SMALL, mlp_width=85), "timm"),
}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_equal_those_the_peer_wrote_down(name, tmp_path):
    vision, format_name = MODELS[name]
    assert largest_difference(GOLDEN / f"{name}.safetensors", vision, format_name, tmp_path) < 1e-6


@pytest.mark.parametrize("name", ["vit_quick_gelu", "vit_gelu"])
def test_embeddings_of_texts_equal_those_the_peer_wrote_down(name, tmp_path):
    vision, format_name = MODELS[name]
    text = TEXT.changed(activation=vision.activation)
    file = GOLDEN / f"{name}.safetensors"
    assert largest_difference(file, vision, format_name, tmp_path, text) < 1e-6
    wrong = text.changed(activation="gelu" if text.activation == "quick_gelu" else "quick_gelu")
    assert largest_difference(file, vision, format_name, tmp_path, wrong) > 1e-4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vit_gelu", {"activation": "quick_gelu"}),
        ("vit_quick_gelu", {"num_heads": 1}),
        ("eva02", {"num_heads": 1}),
    ],
)
def test_a_setting_that_is_in_no_shape_matters(name, change, tmp_path):
    vision, format_name = MODELS[name]
    file, wrong = GOLDEN / f"{name}.safetensors", vision.changed(**change)
    assert largest_difference(file, wrong, format_name, tmp_path) > 1e-3


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"quick_gelu": False, "vision_cfg": {"width": 32, "head_width": 16}}, "activation=gelu"),
        ({"quick_gelu": True, "vision_cfg": {"width": 32, "head_width": 32}}, "num_heads=1"),
    ],
)
def test_the_description_that_open_clip_publishes_is_compared(description, message, tmp_path):
    content = load_file(GOLDEN / "vit_quick_gelu.safetensors")
    weights = {key[8:]: tensor for key, tensor in content.items() if key.startswith("weights/")}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": description}))
    with pytest.raises(WeightsRefused, match=message):
        import_weights(build(VIT), tmp_path, "open_clip")


def test_the_golden_files_are_not_trivial():
    for file in GOLDEN.iterdir():
        first, second = load_file(file)["embeddings"]
        assert not torch.allclose(first, second, atol=1e-2)
