"""A configuration is read strictly and refuses models that could not be built as it says."""

import json
import re

import pytest

from pixclip.config import ARCHITECTURES, ModelConfig, TextConfig, from_dict, to_dict

TINY = ModelConfig(vision=ARCHITECTURES["tiny"], text=TextConfig(embed_dim=16))


def test_a_configuration_comes_back_from_json_as_it_was():
    for name, vision in ARCHITECTURES.items():
        config = TINY.changed(vision=vision, name=name)
        assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("vision", {"width": "192"}, "vision.width must be of type int, got '192'"),
        ("vision", {"width": True}, "vision.width must be of type int"),
        ("vision", {"kind": "resnet"}, "vision.kind must be one of clip, eva02, got resnet"),
        ("vision", {"image_size_px": 100}, "must be a multiple of patch_size_px=16, got 100"),
        ("vision", {"num_heads": 5}, "must be a multiple of num_heads=5, got 192"),
        ("vision", {"activation": "swiglu"}, "vision.activation must be swiglu for kind eva02"),
        ("vision", {"patch_size_px": 0}, "vision.patch_size_px must be at least 1, got 0"),
        ("vision", {"num_heads": 0}, "vision.num_heads must be at least 1, got 0"),
        ("vision", {"num_layers": -1}, "vision.num_layers must be at least 1, got -1"),
        (
            "vision",
            {"layer_norm_eps": float("nan")},
            "vision.layer_norm_eps must be finite, got nan",
        ),
        ("text", {"max_tokens": 0}, "text.max_tokens must be at least 1, got 0"),
        ("adaptor", {"num_layers": -1}, "adaptor.num_layers must be at least 0, got -1"),
        ("preprocess", {"std": [0.2, 0, 0.2]}, "preprocess.std.1 must be at least 1e-06, got 0"),
        (
            "preprocess",
            {"crop_margin": float("inf")},
            "preprocess.crop_margin must be finite, got inf",
        ),
        (
            "preprocess",
            {"mean": [0.5, 0.5]},
            "preprocess.mean must have more values, got [0.5, 0.5]",
        ),
        ("preprocess", {"mean": [0.5] * 4}, "preprocess.mean must have 3 values, got [0.5, 0.5, "),
        (
            "adaptor",
            {"depth": 3},
            "adaptor: unknown settings depth; known are num_layers, expansion",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(section, change, message):
    data = to_dict(TINY)
    data[section].update(change)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(ModelConfig, data)


def test_a_missing_setting_is_refused():
    data = to_dict(TINY)
    del data["vision"]["width"]
    with pytest.raises(ValueError, match="vision: missing settings width"):
        from_dict(ModelConfig, data)


@pytest.mark.parametrize(
    "change", [{"activation": "gelu"}, {"width": 756, "num_heads": 14}, {"kind": "clip"}]
)
def test_an_eva02_tower_needs_its_gated_mlp_and_heads_that_rotate(change):
    with pytest.raises(ValueError, match="kind eva02"):
        ARCHITECTURES["eva02_b16"].changed(**change)
