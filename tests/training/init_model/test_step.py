"""The model that training starts from."""

import json
from typing import get_args

import pytest
import torch

from components.core.errors import InputError, SettingsError
from components.core.run import run_step
from components.core.settings import parse_settings
from components.core.step import load_step
from components.training.init_model import Format, InitModelSettings, init_model
from pixclip.checkpoint import load
from pixclip.config import ARCHITECTURES, PREPROCESS, TextConfig, to_dict
from pixclip.importers import CHECKPOINT, FORMATS
from pixclip.training import recipes
from tests.pixclip.importers import public_formats as public
from tests.pixclip.importers.conftest import EVA02, build
from tests.pixclip.tiny_models import CLIP_TEXT, save_clip_tokenizer

SMALL = "small_eva02"


@pytest.fixture
def text_tower(tmp_path):
    """The files of a text tower that this step reads or carries along."""
    folder = tmp_path / "text_tower"
    folder.mkdir()
    described = {"config": to_dict(TextConfig(embed_dim=12, max_tokens=99)), "provenance": {}}
    (folder / "text_tower.json").write_text(json.dumps(described))
    (folder / "model.safetensors").write_bytes(b"the language model")
    return folder


@pytest.fixture
def small_recipe(monkeypatch):
    """A recipe of an EVA02 tower that is made in no time."""
    monkeypatch.setitem(ARCHITECTURES, SMALL, EVA02)
    recipe = recipes.RECIPES["pixclip_b16_paper"].changed(
        name=SMALL, architecture=SMALL, embed_dim=16
    )
    monkeypatch.setitem(recipes.RECIPES, SMALL, recipe)
    return SMALL


def run(text_tower, parent, **settings):
    receipt = run_step(
        load_step("init_model"), {"text_tower": text_tower}, {"parent": parent}, settings
    )
    return receipt.metrics


def test_without_weights_the_recipes_model_is_drawn_at_random(text_tower, tmp_path):
    metrics = run(text_tower, tmp_path / "parent", recipe="tiny")
    model = load(tmp_path / "parent")
    recipe = recipes.RECIPES["tiny"]
    assert model.config.vision == ARCHITECTURES["tiny"].changed(embed_dim=recipe.embed_dim)
    assert model.config.text.max_tokens == 99
    assert model.logit_scale.item() == pytest.approx(recipe.logit_scale)
    assert metrics["num_imported"] == 0
    assert metrics["num_new"] == metrics["num_parameters"] > 1_000_000
    assert (tmp_path / "parent/text_tower/model.safetensors").read_bytes() == b"the language model"


def test_the_room_around_a_crop_is_stored_with_the_model(text_tower, tmp_path, small_recipe):
    run(text_tower, tmp_path / "parent", recipe=small_recipe, crop_margin=0.25)
    assert load(tmp_path / "parent").preprocess.config.crop_margin == 0.25


def test_the_preprocessing_of_a_public_project_is_stored_with_the_model(text_tower, tmp_path):
    run(text_tower, tmp_path / "parent", preprocess="alphaclip", crop_margin=0.25)
    wanted = PREPROCESS["alphaclip"].changed(crop_margin=0.25)
    assert load(tmp_path / "parent").config.preprocess == wanted


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    text_tower, tmp_path, small_recipe
):
    contents = []
    for place, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.rand(1)
        run(text_tower, tmp_path / place, recipe=small_recipe, seed=seed)
        contents.append((tmp_path / place / "model.safetensors").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_public_weights_come_with_a_report_of_every_key(text_tower, tmp_path, small_recipe):
    original = build(EVA02.changed(mask_bias=True))
    torch.save(public.released(original.state_dict()), tmp_path / "iter_8700.pth")
    metrics = run(
        text_tower,
        tmp_path / "parent",
        recipe=small_recipe,
        weights=str(tmp_path / "iter_8700.pth"),
        format="pixclip",
    )
    model = load(tmp_path / "parent")
    for name, tensor in model.state_dict().items():
        if name != "logit_scale":
            assert torch.equal(tensor, original.state_dict()[name]), name
    assert metrics["num_new"] == 1
    report = json.loads((tmp_path / "parent/notes.json").read_text())["import_report"]
    assert report["file"] == "iter_8700.pth"
    assert report["num_used"] == len(model.state_dict()) - 1
    assert {"target": "logit_scale", "start": "as it was: a setting of the recipe"} in report["new"]


def test_weights_that_do_not_fit_leave_no_model(text_tower, tmp_path, small_recipe):
    weights = public.eva_clip(build(EVA02.changed(num_layers=3)).state_dict())
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="source's tower has 3 blocks, the model's 2"):
        run(
            text_tower,
            tmp_path / "parent",
            recipe=small_recipe,
            weights=str(tmp_path / "weights.pt"),
            format="eva_clip",
        )
    assert not (tmp_path / "parent").exists()


def test_other_weights_than_the_pinned_ones_are_refused(text_tower, tmp_path, small_recipe):
    torch.save(public.eva_clip(build(EVA02).state_dict()), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="has SHA-256"):
        run(
            text_tower,
            tmp_path / "parent",
            recipe=small_recipe,
            weights=str(tmp_path / "weights.pt"),
            format="eva_clip",
            weights_sha256="0" * 64,
        )


def test_weights_that_are_not_there_are_an_input_error(text_tower, tmp_path):
    with pytest.raises(InputError, match=r"init_model\.weights: no weights at"):
        run(text_tower, tmp_path / "parent", weights=str(tmp_path / "w.pt"), format="openai")


def test_a_folder_that_is_no_text_tower_is_an_input_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is no text tower"):
        run(tmp_path / "empty", tmp_path / "parent")


def test_an_unknown_recipe_is_named_with_those_that_exist(text_tower, tmp_path):
    with pytest.raises(SettingsError, match=r"init_model\.recipe: no recipe 'b16'.*tiny"):
        run(text_tower, tmp_path / "parent", recipe="b16")


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": "w.pt"},
        {"format": "openai"},
        {"new_projection": True},
        {"new_adaptor": True},
        {"resize_positions": True},
        {"text": "clip", "text_weights": "w.pt"},
        {"context_length": 248},
        {"num_fixed_positions": 20},
        {"weights": "w.pt", "format": "alphaclip", "text_weights": "w.pt"},
        {"activation": "swiglu"},
        {"weights_sha256": "0" * 64},
        {"weights": "w.pt", "format": "clip"},
        {"weights": "w.pt", "format": "openai", "weights_sha256": "abc"},
        {"weights": "stage1", "format": "checkpoint", "new_projection": True},
        {"weights": "w.pt", "format": "alphaclip", "text": "clip", "text_format": "checkpoint"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingsError, match="init_model"):
        parse_settings(init_model, settings)


def test_the_settings_know_every_format():
    assert set(get_args(Format)) == {"", *FORMATS, CHECKPOINT}


def test_a_recipe_of_pa_clip_gets_its_own_text_tower(tmp_path):
    tokenizer = save_clip_tokenizer(tmp_path / "tokenizer")
    metrics = init_model.function(
        text_tower=tokenizer,
        parent=tmp_path / "parent",
        settings=InitModelSettings(recipe="paclip_tiny"),
    )
    model = load(tmp_path / "parent")
    recipe = recipes.PART_RECIPES["paclip_tiny"]
    assert model.config.text.context_length == recipe.text.context_length
    assert model.config.text.vocab_size == CLIP_TEXT.vocab_size
    assert model.logit_scale.item() == pytest.approx(recipe.logit_scale)
    assert metrics["num_new"] == metrics["num_parameters"]
    assert model.encode_text(["the red car"]).shape == (1, recipe.embed_dim)
