"""A model of ours goes on under another recipe: it is the same model, or the step says why not."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from components.core.errors import InputError
from components.training.init_model import InitModelSettings, init_model
from pixclip.checkpoint import load, save_checkpoint
from pixclip.config import ARCHITECTURES, ClipTextConfig
from pixclip.text.clip_tokenizer import ClipTokenizer, learn_tokenizer
from pixclip.training import recipes
from tests.pixclip.tiny_models import (
    CLIP_TEXT,
    TEXT,
    VISION,
    save_clip_tokenizer,
    save_tiny_text_tower,
    tiny_clip,
    tiny_model,
)

FIRST, SECOND = "small_stage1", "small_stage2"
TEXTS = ["the red car", "a car in the ring"]


@pytest.fixture(autouse=True)
def small_recipes(monkeypatch):
    """Two recipes of one small model of PA-CLIP."""
    monkeypatch.setitem(ARCHITECTURES, "small", VISION["clip"])
    for name in (FIRST, SECOND):
        recipe = recipes.PART_RECIPES["paclip_tiny"].changed(
            name=name, architecture="small", embed_dim=VISION["clip"].embed_dim, text=CLIP_TEXT
        )
        monkeypatch.setitem(recipes.PART_RECIPES, name, recipe)


@pytest.fixture
def stage1(tmp_path) -> Path:
    """What training wrote in a first stage: every weight moved, the temperature too."""
    model = tiny_clip()
    model.config = model.config.changed(name=FIRST)
    notes = {"recipe": FIRST, "trained_on": {"dataset": "d" * 64}}
    tokenizer = one_file(save_clip_tokenizer(tmp_path / "tokenizer"))
    save_checkpoint(tmp_path / "stage1", model, text_tower=tokenizer, notes=notes)
    return tmp_path / "stage1"


def one_file(tokenizer: Path) -> Path:
    """A tokenizer in the form that checkpoints have."""
    folder = tokenizer.with_name(f"{tokenizer.name}-json")
    ClipTokenizer.open(tokenizer, CLIP_TEXT).save(folder)
    return folder


def begin(weights: Path, parent: Path, text_tower: Path | None = None, **settings):
    settings = {"recipe": SECOND, "weights": str(weights), "format": "checkpoint", **settings}
    return init_model.function(
        text_tower=text_tower or weights / "text_tower",
        parent=parent,
        settings=InitModelSettings.model_validate(settings),
    )


def test_the_second_stage_begins_with_the_very_model_that_the_first_one_ended_with(
    stage1, tmp_path
):
    metrics = begin(stage1, tmp_path / "parent")
    before, after = load(stage1), load(tmp_path / "parent")
    assert after.config == before.config.changed(name=SECOND)
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    assert after.logit_scale.item() != recipes.PART_RECIPES[SECOND].logit_scale
    images = torch.randn(2, 3, 32, 32)
    masks = torch.ones(2, 1, 32, 32)
    for encode in (
        lambda model: model.encode_text(TEXTS),
        lambda model: model.vision.encode(model.vision.tokens(images, masks))[0],
    ):
        with torch.no_grad():
            assert torch.equal(torch.as_tensor(encode(before)), torch.as_tensor(encode(after)))
    assert metrics["num_new"] == 0
    assert metrics["num_imported"] == metrics["num_parameters"]


def test_the_notes_keep_what_the_first_stage_was(stage1, tmp_path):
    begin(stage1, tmp_path / "parent")
    notes = json.loads((tmp_path / "parent/notes.json").read_text())
    sums = json.loads((stage1 / "checksums.json").read_text())
    assert notes["import_report"]["sha256"] == sums["model.safetensors"]
    assert notes["goes_on_from"] == {"recipe": FIRST, "trained_on": {"dataset": "d" * 64}}


def test_what_was_drawn_at_random_and_never_trained_is_still_told(stage1, tmp_path):
    drawn = InitModelSettings(recipe=FIRST)
    init_model.function(text_tower=stage1 / "text_tower", parent=tmp_path / "drawn", settings=drawn)
    begin(tmp_path / "drawn", tmp_path / "parent")
    assert json.loads((tmp_path / "parent/notes.json").read_text())["import_report"] is None


def test_a_checkpoint_of_another_architecture_is_refused_with_both_sides(stage1, tmp_path):
    with pytest.raises(
        InputError,
        match=r"(?s)is not the model 'small_stage2' that was asked for;.*"
        r"vision\.patch_size_px: the checkpoint has 8, the model that was asked for 16.*"
        r"vision\.width: the checkpoint has 32, the model that was asked for 192",
    ):
        begin(stage1, tmp_path / "parent", architecture="tiny")
    assert not (tmp_path / "parent").exists()


def test_other_settings_than_the_checkpoints_are_refused(stage1, tmp_path):
    with pytest.raises(InputError, match=r"preprocess\.crop_margin: the checkpoint has 0\.0"):
        begin(stage1, tmp_path / "parent", crop_margin=0.5)
    with pytest.raises(InputError, match=r"text\.num_fixed_positions: the checkpoint has 0.* 4"):
        begin(stage1, tmp_path / "parent", num_fixed_positions=4)


def test_a_tokenizer_that_makes_other_tokens_is_refused(stage1, tmp_path):
    """Of the same size, so that nothing but the tokens themselves would tell."""
    own = one_file(save_clip_tokenizer(tmp_path / "other"))
    content = json.loads((own / "tokenizer.json").read_text())
    content["model"]["merges"].reverse()
    (own / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"tokenizer: that of .*other-json is another than the check"
    ):
        begin(stage1, tmp_path / "parent", own)


def test_a_tokenizer_of_another_size_is_refused_with_the_advice_to_take_the_checkpoints(
    stage1, tmp_path
):
    learn_tokenizer(["red cars and blue cars"] * 20, 530, tmp_path / "learned")
    with pytest.raises(InputError, match=r"(?s)text tower that it holds.*text\.vocab_size: "):
        begin(stage1, tmp_path / "parent", tmp_path / "learned")


def test_a_damaged_checkpoint_is_refused(stage1, tmp_path):
    with (stage1 / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(InputError, match=r"init_model\.weights: .*model\.safetensors is damaged"):
        begin(stage1, tmp_path / "parent")


def test_a_damaged_tokenizer_is_not_what_the_next_one_is_compared_with(stage1, tmp_path):
    tower = shutil.copytree(stage1 / "text_tower", tmp_path / "tower")
    with (stage1 / "text_tower/tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged"):
        begin(stage1, tmp_path / "parent", tower)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    tokenizer = save_clip_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(InputError, match=r"init_model\.weights: .*is no checkpoint"):
        begin(tmp_path / "folder", tmp_path / "parent", tokenizer)
    with pytest.raises(InputError, match=r"init_model\.weights: there is no folder"):
        begin(tmp_path / "nothing", tmp_path / "parent", tokenizer)


def test_the_checkpoints_digest_can_be_pinned(stage1, tmp_path):
    with pytest.raises(InputError, match="has SHA-256"):
        begin(stage1, tmp_path / "parent", weights_sha256="0" * 64)


@pytest.fixture
def of_pixclip(tmp_path, monkeypatch) -> Path:
    """A checkpoint of PixCLIP, whose texts a language model reads."""
    tower, model = save_tiny_text_tower(tmp_path / "tower"), tiny_model()
    save_checkpoint(tmp_path / "pixclip", model, text_tower=tower)
    recipe = recipes.RECIPES["tiny"].changed(
        name="small", architecture="small", embed_dim=VISION["clip"].embed_dim,
        adaptor=model.config.adaptor,
    )  # fmt: skip
    monkeypatch.setitem(recipes.RECIPES, "small", recipe)
    return tmp_path / "pixclip"


def test_a_model_with_a_language_model_goes_on_too(of_pixclip, tmp_path):
    begin(of_pixclip, tmp_path / "parent", tmp_path / "tower", recipe="small")
    before, after = load(of_pixclip), load(tmp_path / "parent")
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    assert after.config.text == TEXT


def test_another_language_model_of_the_same_size_is_refused(of_pixclip, tmp_path):
    with (tmp_path / "tower/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(InputError, match=r"text tower: model\.safetensors is not the same file"):
        begin(of_pixclip, tmp_path / "parent", tmp_path / "tower", recipe="small")


def test_a_model_of_pa_clip_is_no_model_of_pixclip(stage1, of_pixclip, tmp_path):
    with pytest.raises(InputError, match=r"text\.kind: the checkpoint has 'clip'"):
        begin(stage1, tmp_path / "parent", tmp_path / "tower", recipe="small")


def test_a_bias_of_the_mask_comes_with_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    config = tiny_clip().config
    model = type(tiny_clip())(config.changed(vision=config.vision.changed(mask_bias=True)))
    tokenizer = save_clip_tokenizer(tmp_path / "tokenizer")
    save_checkpoint(tmp_path / "biased", model, text_tower=tokenizer)
    begin(tmp_path / "biased", tmp_path / "parent")
    assert load(tmp_path / "parent").config.vision.mask_bias


def test_the_recipes_of_both_stages_are_of_one_model():
    for size in ("b16", "l14"):
        first, second = (recipes.PART_RECIPES[f"paclip_{size}_stage{n}"] for n in (1, 2))
        same = ("architecture", "embed_dim", "text")
        assert [getattr(first, name) for name in same] == [getattr(second, name) for name in same]
        assert isinstance(first.text, ClipTextConfig)
