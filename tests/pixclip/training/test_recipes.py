"""Recipes are complete, and changes to them are checked."""

import math
import subprocess
import sys

import pytest

from pixclip.config import ARCHITECTURES
from pixclip.training.recipes import PART_RECIPES, RECIPES, find_stage


def test_the_papers_recipe_has_the_numbers_of_table_9():
    recipe = RECIPES["pixclip_b16_paper"]
    (stage,) = recipe.stages
    assert (stage.optimizer.mask_lr, stage.optimizer.rest_lr) == (1e-5, 1e-7)
    assert (stage.optimizer.weight_decay, stage.optimizer.warmup_steps) == (1e-2, 800)
    assert (stage.losses.alpha, stage.losses.beta) == (0.25, 0.25)
    assert (stage.data.batch_size, stage.data.full_image_share) == (1024, 0.1)
    assert (stage.num_epochs, stage.precision, recipe.adaptor.num_layers) == (8, "bf16", 4)
    assert (recipe.architecture, recipe.embed_dim) == ("eva02_b16", 1280)
    assert "logit_scale" not in stage.trainable
    assert "adaptor" not in stage.trainable


def test_regions_and_parts_are_trained_by_the_papers_numbers_but_for_their_balance():
    (parts,), (papers,) = RECIPES["pixclip_parts"].stages, RECIPES["pixclip_b16_paper"].stages
    assert parts.changed(data=papers.data) == papers
    data = parts.data
    assert (data.regions_per_epoch, data.shuffle_shards) == (4, 64)
    assert data.changed(regions_per_epoch=0, shuffle_shards=16) == papers.data


DEMO_REGIONS = 620  # to train on, of 300 scenes


def test_the_learning_rate_comes_down_again_in_every_stage_of_the_demo():
    for stage in RECIPES["tiny"].stages:
        num_steps = stage.num_epochs * (DEMO_REGIONS // stage.data.batch_size)
        assert stage.optimizer.warmup_steps <= num_steps / 4, stage.name


def test_a_recipe_whose_weights_bring_no_adaptor_trains_one_first():
    align, regions = RECIPES["pixclip_l14"].stages
    assert "adaptor" in align.trainable
    assert "adaptor" not in regions.trainable
    (papers,) = RECIPES["pixclip_b16_paper"].stages
    assert regions == papers.changed(gradient_checkpointing=True)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_itself_and_a_known_architecture(name):
    assert RECIPES[name].name == name
    assert RECIPES[name].architecture in ARCHITECTURES


def test_a_change_reaches_its_field_and_nothing_else():
    stage = find_stage(RECIPES, "tiny", "refine", {"optimizer.rest_lr": 1, "num_steps": 2})
    assert stage.optimizer.rest_lr == 1.0
    assert stage.num_steps == 2
    assert stage.data == find_stage(RECIPES, "tiny", "refine").data


def test_a_change_inside_a_section_leaves_its_other_fields():
    dotted = {"optimizer.rest_lr": 1e-6, "data.batch_size": 6}
    nested = {"optimizer": {"rest_lr": 1e-6}, "data": {"batch_size": 6}}
    assert find_stage(RECIPES, "tiny", "align", nested) == find_stage(
        RECIPES, "tiny", "align", dotted
    )


DEEP: dict = {"a": 1}
for _ in range(5000):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("recipe", "stage", "changes", "message"),
    [
        ("huge", "refine", {}, "no recipe 'huge'; known are pixclip_b16_paper"),
        ("tiny", "first", {}, "no stage 'first'; it has align, refine"),
        ("tiny", "refine", {"lr": 1}, "changes: no field 'lr'; known are data"),
        ("tiny", "refine", {"name": "x"}, "no field 'name'"),
        ("tiny", "refine", {"optimizer": {"lr": 1}}, "no field 'lr'; known are mask_lr"),
        ("tiny", "refine", {"optimizer": 1}, "optimizer"),
        ("tiny", "refine", {"optim.lr": 1}, "no section 'optim'; known are"),
        ("tiny", "refine", {"optimizer.mask_lr": "fast"}, "optimizer.mask_lr must be of type"),
        (
            "tiny",
            "refine",
            {"optimizer.mask_lr": -1.0},
            "optimizer.mask_lr must be at least 0, got -1.0",
        ),
        ("tiny", "refine", {"losses.fc_target": "x"}, "losses.fc_target must be one of text"),
        ("tiny", "refine", {"losses.alpha": 0.0}, "crops are for L_FC, so change both"),
        ("tiny", "refine", {"optimizer.rest_lr": float("nan")}, "rest_lr must be finite"),
        ("tiny", "refine", {"optimizer.mask_lr": float("inf")}, "mask_lr must be finite"),
        ("tiny", "refine", {"losses.beta": float("nan")}, "losses.beta must be finite"),
        ("tiny", "refine", {"data.seed": -1}, "data.seed must be at least 0, got -1"),
        ("tiny", "refine", {"data.batch_size": 0}, "data.batch_size must be at least 1"),
        ("tiny", "refine", {"trainable": []}, "trainable must name a part"),
        ("tiny", "refine", {"trainable": ["words"]}, "trainable.0 must be one of mask"),
        ("tiny", "refine", {"num_epochs": 0}, "num_epochs must be at least 1"),
        ("tiny", "refine", {"num_epochs": 10**12}, "num_epochs must be at most 10000000"),
        ("tiny", "refine", {"data.batch_size": 10**12}, "batch_size must be at most 10000000"),
        ("tiny", "refine", {"data.shuffle_shards": 10**400}, "shuffle_shards must be at most"),
        (
            "tiny",
            "refine",
            {"optimizer.rest_lr": 10**400},
            "rest_lr must be of type float, got 10000",
        ),
        ("tiny", "refine", {"optimizer": DEEP}, "no field 'a'"),
        (
            "tiny",
            "refine",
            {"losses.alpha": DEEP},
            r"losses.alpha must be of type float, got (a dict|\{'a': )",  # as deep as Python writes
        ),
    ],
)
def test_a_wrong_change_is_refused_by_name(recipe, stage, changes, message):
    with pytest.raises(ValueError, match=message):
        find_stage(RECIPES, recipe, stage, changes)


def test_recipes_need_no_torch():
    program = "import pixclip.training.recipes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_first_stage_of_pa_clip_is_the_papers():
    recipe = PART_RECIPES["paclip_b16_stage1"]
    (stage,) = recipe.stages
    assert (recipe.architecture, recipe.embed_dim) == ("clip_vit_b16", 512)
    assert recipe.text.context_length == 248
    assert math.exp(-recipe.logit_scale) == pytest.approx(0.07)
    assert stage.data.batch_size == 10 * 128
    assert stage.optimizer.rest_lr == 1e-6
    assert set(stage.trainable) == {"vision", "text", "logit_scale"}


def test_the_second_stage_of_pa_clip_is_the_papers():
    (stage,) = PART_RECIPES["paclip_b16_stage2"].stages
    assert stage.data.batch_size == 8 * 64
    assert (stage.optimizer.rest_lr, stage.optimizer.warmup_steps) == (1e-6, 300)
    assert stage.num_epochs == 20


@pytest.mark.parametrize("name", PART_RECIPES)
def test_recipes_of_pa_clip_know_their_name_and_architecture(name):
    recipe = PART_RECIPES[name]
    assert recipe.name == name
    assert recipe.architecture in ARCHITECTURES
    assert recipe.embed_dim == ARCHITECTURES[recipe.architecture].embed_dim


@pytest.mark.parametrize(
    "changes", [{"losses.hard": 0.5}, {"data.hard_negatives": 3}], ids=["loss", "data"]
)
def test_wrong_captions_need_both_the_loss_and_the_data(changes):
    with pytest.raises(ValueError, match=r"does not fit data.hard_negatives=\d; .* change both"):
        find_stage(RECIPES, "tiny", "refine", changes)
    both = {"losses.hard": 0.5, "data.hard_negatives": 3}
    assert find_stage(RECIPES, "tiny", "refine", both).losses.hard == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"short": 0.0, "long": 0.0, "alpha": 0.0}}, "one of losses.short, long"),
        ({"losses.alpha": 0.0}, "data.parts_per_image=4 does not fit losses.alpha=0.0"),
        ({"data.parts_per_image": 0}, "data.parts_per_image=0 does not fit losses.alpha=1.0"),
        ({"losses.hard": 0.5}, "losses.hard=0.5 needs data.hard_negatives"),
        ({"data.hard_negatives": 3}, "wrong captions need losses.hard"),
        ({"trainable": ["adaptor"]}, "trainable.0 must be one of mask, vision, text"),
        ({"trainable": []}, "trainable must name a part"),
    ],
)
def test_losses_and_data_of_parts_fit_together(changes, message):
    with pytest.raises(ValueError, match=message):
        find_stage(PART_RECIPES, "paclip_b16_stage2", "fgpart", changes)
