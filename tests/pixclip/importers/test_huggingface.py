"""transformers' own CLIP and our tower give the same embeddings of the same weights."""

import json

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from pixclip.config import ARCHITECTURES
from pixclip.importers import WeightsRefused, import_weights
from tests.pixclip.importers.conftest import CLIP, build

SMALL_TEXT = CLIPTextConfig(
    vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
)


def vision_config(ours, **changes):
    """Our configuration in transformers' words."""
    return CLIPVisionConfig(
        hidden_size=ours.width,
        intermediate_size=ours.mlp_width,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_heads,
        image_size=ours.image_size_px,
        patch_size=ours.patch_size_px,
        projection_dim=ours.embed_dim,
        hidden_act=ours.activation,
        **changes,
    )


def disturbed(model):
    """The model with random numbers added, so that no norm or bias is trivial."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


TOWERS = {
    "small": CLIP,
    "two_heads": CLIP.changed(num_heads=2, activation="gelu"),
    "vit_b16": ARCHITECTURES["clip_vit_b16"],
}


@pytest.mark.parametrize("name", TOWERS)
def test_embeddings_equal_those_of_transformers(name, tmp_path):
    tower = TOWERS[name]
    peer = disturbed(CLIPVisionModelWithProjection(vision_config(tower)))
    peer.save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    model = build(tower)
    report = import_weights(model, tmp_path, "huggingface")
    images = torch.randn(2, 3, tower.image_size_px, tower.image_size_px)
    with torch.no_grad():
        theirs = peer(images).image_embeds
        torch.testing.assert_close(model.vision(images), theirs, atol=1e-5, rtol=1e-5)
    assert report.assumed == ()


def test_the_whole_clip_model_gives_its_tower_and_drops_its_text_side(tmp_path):
    peer = disturbed(
        CLIPModel(
            CLIPConfig(
                vision_config=vision_config(CLIP).to_dict(),
                text_config=SMALL_TEXT.to_dict(),
                projection_dim=CLIP.embed_dim,
            )
        )
    )
    peer.save_pretrained(tmp_path)
    model = build(CLIP)
    report = import_weights(model, tmp_path, "huggingface")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = peer.get_image_features(images)
        theirs = getattr(theirs, "pooler_output", theirs)
        torch.testing.assert_close(model.vision(images), theirs, atol=1e-5, rtol=1e-5)
    dropped = {key.source for key in report.dropped}
    assert {"logit_scale", "text_projection.weight"} <= dropped


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("hidden_act", "gelu", "activation=gelu"),
        ("num_attention_heads", 2, "num_heads=2"),
        ("layer_norm_eps", 1e-6, "layer_norm_eps=1e-06"),
    ],
)
def test_a_setting_that_no_shape_shows_is_compared(setting, value, message, tmp_path):
    CLIPVisionModelWithProjection(vision_config(CLIP)).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {setting: value}))
    with pytest.raises(WeightsRefused, match=message):
        import_weights(build(CLIP), tmp_path, "huggingface")


def test_without_a_description_the_report_says_what_was_assumed(tmp_path):
    CLIPVisionModelWithProjection(vision_config(CLIP)).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    report = import_weights(build(CLIP), tmp_path, "huggingface")
    assert "vision.activation=quick_gelu: the source does not tell" in report.assumed
    assert [fact.split("=")[0] for fact in report.assumed[-2:]] == [
        "preprocess.mean",
        "preprocess.std",
    ]


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", [[0.5, 0.5, 0.5], 0.5, "0.5", {}])
def test_other_pixel_statistics_are_refused(name, value, tmp_path):
    CLIPVisionModelWithProjection(vision_config(CLIP)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
    setting = name.replace("image_", "")
    with pytest.raises(WeightsRefused, match=rf"has {setting}=.*0?.*, preprocess.{setting} is "):
        import_weights(build(CLIP), tmp_path, "huggingface")


def test_a_description_without_sections_is_refused(tmp_path):
    CLIPVisionModelWithProjection(vision_config(CLIP)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vision_config": null}')
    with pytest.raises(WeightsRefused, match=r"config.json.*vision_config must be a section"):
        import_weights(build(CLIP), tmp_path, "huggingface")
