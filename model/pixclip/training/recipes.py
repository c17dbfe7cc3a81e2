"""Recipes: complete configurations of a training as plain functions, and changes by dotted names.

Without torch.
"""

import math
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from pixclip.config import AdaptorConfig, ClipTextConfig, from_dict, to_dict
from pixclip.data.config import DataConfig, PartDataConfig
from pixclip.training.config import (
    LONG_TEXT,
    AnyRecipe,
    LossConfig,
    PartRecipe,
    PartStage,
    Recipe,
    Stage,
    StageT,
)
from pixclip.training.schedule import OptimizerConfig


def pixclip_b16_paper() -> Recipe:
    """The paper's model (Table 9): LLM2CLIP's EVA02 ViT-B/16; the text side stays frozen."""
    return Recipe(
        name="pixclip_b16_paper",
        architecture="eva02_b16",
        embed_dim=1280,
        stages=(Stage(name="regions", num_epochs=8, data=DataConfig(batch_size=1024)),),
    )


def pixclip_l14() -> Recipe:
    """The paper's recipe on OpenAI's ViT-L/14 at 336 px.

    Those weights have neither the adaptor nor a projection of this width, and the paper does not
    say where its own came from. So a stage goes before the paper's, with the numbers by which
    LLM2CLIP aligns a tower with its adaptor (arXiv:2411.04997), but warmed up.
    """
    paper = pixclip_b16_paper()
    (regions,) = paper.stages
    align = Stage(
        name="align",
        losses=LossConfig(alpha=0.0, beta=0.0),
        data=regions.data.changed(needs_crops=False),
        optimizer=OptimizerConfig(rest_lr=1e-5, weight_decay=0.05, max_grad_norm=5.0),
        num_epochs=8,
        trainable=("mask", "vision", "adaptor"),
        gradient_checkpointing=True,
    )
    return paper.changed(
        name="pixclip_l14",
        architecture="clip_vit_l14_336",
        stages=(align, regions.changed(gradient_checkpointing=True)),
    )


def pixclip_parts() -> Recipe:
    """One PixCLIP for any region, from a whole image to a beak: the paper's recipe on more data.

    The data are LongGRIT and FG-Part, merged by `merge_data`; the numbers are the paper's, but two.
    FG-Part has about a million parts in the 92,000 training images of its sets, eleven an image,
    where LongGRIT's have about three regions. `regions_per_epoch`: as many of an image as PA-CLIP
    takes (`parts_per_image`), else a sixth of the images would fill two fifths of every batch with
    crops of themselves; which ones changes, so that eight epochs show nearly all.
    `shuffle_shards`: each set lies in shards of its own, and of 16 at a time some windows would
    have none of FG-Part's.

    Whole images: the paper's `full_image_share` of both, and FG-Part's own regions of that kind.
    """
    paper = pixclip_b16_paper()
    (regions,) = paper.stages
    data = regions.data.changed(regions_per_epoch=4, shuffle_shards=64)
    return paper.changed(name="pixclip_parts", stages=(regions.changed(data=data),))


def tiny() -> Recipe:
    """A small model from scratch on two CPU cores in minutes: same code path, tiny sizes.

    At a scale of 100 random weights are far worse than chance and the first steps only undo that,
    so the scale starts where CLIP's started, at 1 / 0.07, and learns.

    First only L_CL, which is a third of the work a step; then all three branches. Three regions
    of a scene come together, so that telling siblings apart is a part of every batch, and batches
    are small: few epochs of few regions need many steps.
    """
    optimizer = OptimizerConfig(
        mask_lr=1e-3, rest_lr=1e-3, weight_decay=0.05, warmup_steps=20, max_grad_norm=1.0
    )
    data = DataConfig(batch_size=32, regions_per_image=3, needs_crops=False)
    align = Stage(
        name="align",
        losses=LossConfig(alpha=0.0, beta=0.0),
        data=data,
        optimizer=optimizer,
        num_epochs=20,
        trainable=("mask", "vision", "adaptor", "logit_scale"),
        precision="fp32",
    )
    refine = align.changed(
        name="refine",
        losses=LossConfig(),
        data=data.changed(needs_crops=True, seed=1),
        # Short, so the warm-up must be: the rate has to come down again before the stage ends. And
        # low: crops are new to the model, and learning them costs it something at first.
        optimizer=optimizer.changed(mask_lr=3e-5, rest_lr=3e-5, warmup_steps=3),
        num_epochs=1,
    )
    return Recipe(
        name="tiny",
        architecture="tiny",
        embed_dim=256,
        adaptor=AdaptorConfig(num_layers=1),
        logit_scale=math.log(1 / 0.07),
        stages=(align, refine),
    )


def paclip_b16_stage1() -> PartRecipe:
    """PA-CLIP's first stage: OpenAI's ViT-B/16 on FineHARD, on ten GPUs of 128 images each.

    Batch, rate and temperature are the paper's (its section 4.1). What it leaves open is FG-CLIP's,
    whose recipe it follows: one epoch, a warm-up of 200 steps, a weight decay of 1e-3.
    """
    return PartRecipe(
        name="paclip_b16_stage1",
        architecture="clip_vit_b16",
        embed_dim=512,
        logit_scale=math.log(1 / 0.07),
        stages=(
            PartStage(
                name="finehard",
                data=PartDataConfig(batch_size=1280),
                optimizer=OptimizerConfig(rest_lr=1e-6, weight_decay=1e-3, warmup_steps=200),
            ),
        ),
    )


def paclip_b16_stage2() -> PartRecipe:
    """PA-CLIP's second stage: 20 epochs of FG-Part, on eight GPUs of 64 images each (section 4.1).

    It starts from a checkpoint of the first stage, whose temperature goes on.
    """
    first = paclip_b16_stage1()
    return first.changed(
        name="paclip_b16_stage2",
        stages=(
            first.stages[0].changed(
                name="fgpart",
                data=PartDataConfig(batch_size=512, seed=1),
                optimizer=first.stages[0].optimizer.changed(warmup_steps=300),
                num_epochs=20,
            ),
        ),
    )


def paclip_l14_stage1() -> PartRecipe:
    """As `paclip_b16_stage1`, of OpenAI's ViT-L/14."""
    return _large(paclip_b16_stage1(), "paclip_l14_stage1")


def paclip_l14_stage2() -> PartRecipe:
    """As `paclip_b16_stage2`, of OpenAI's ViT-L/14."""
    return _large(paclip_b16_stage2(), "paclip_l14_stage2")


def paclip_tiny() -> PartRecipe:
    """A small PA-CLIP from scratch on two CPU cores in minutes: same code path, tiny sizes.

    Texts of the sample have up to 90 tokens; positions are drawn, so there are no trained rows to
    keep.
    """
    return PartRecipe(
        name="paclip_tiny",
        architecture="tiny",
        embed_dim=256,
        logit_scale=math.log(1 / 0.07),
        text=ClipTextConfig(
            context_length=96,
            vocab_size=2048,
            width=192,
            num_heads=3,
            num_layers=3,
            mlp_width=768,
            activation="gelu",
            end_token_id=2047,
        ),
        stages=(
            PartStage(
                name="parts",
                data=PartDataConfig(batch_size=24, parts_per_image=3),
                optimizer=OptimizerConfig(
                    rest_lr=1e-3, weight_decay=0.05, warmup_steps=20, max_grad_norm=1.0
                ),
                num_epochs=12,
                precision="fp32",
            ),
        ),
    )


def _large(recipe: PartRecipe, name: str) -> PartRecipe:
    return recipe.changed(
        name=name,
        architecture="clip_vit_l14",
        embed_dim=768,
        text=LONG_TEXT.changed(width=768, num_heads=12, mlp_width=3072),
        stages=tuple(stage.changed(gradient_checkpointing=True) for stage in recipe.stages),
    )


RECIPES = {
    recipe.__name__: recipe() for recipe in (pixclip_b16_paper, pixclip_l14, pixclip_parts, tiny)
}
PART_RECIPES = {
    recipe.__name__: recipe()
    for recipe in (
        paclip_b16_stage1,
        paclip_b16_stage2,
        paclip_l14_stage1,
        paclip_l14_stage2,
        paclip_tiny,
    )
}

ALL_RECIPES: Mapping[str, AnyRecipe[Any]] = ChainMap[str, Any](RECIPES, PART_RECIPES)


def find_stage(
    recipes: Mapping[str, AnyRecipe[StageT]],
    recipe: str,
    stage: str,
    changes: Mapping[str, Any] | None = None,
) -> StageT:
    """A recipe's stage, with changes by dotted name, e.g. `{"optimizer.rest_lr": 1e-6}`.

    `{"optimizer": {"rest_lr": 1e-6}}` is the same: the section's other fields stay.

    Raises:
        ValueError: no such recipe, stage or field, or a value of the wrong type or range.
    """
    if recipe not in recipes:
        raise ValueError(f"no recipe '{recipe}'; known are {', '.join(recipes)}")
    stages = {known.name: known for known in recipes[recipe].stages}
    if stage not in stages:
        raise ValueError(f"recipe '{recipe}' has no stage '{stage}'; it has {', '.join(stages)}")
    data = to_dict(stages[stage])
    for name, value in (changes or {}).items():
        _change(data, name, value)
    return from_dict(type(stages[stage]), data)


def _change(data: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = data.get(section)
        if not isinstance(inner, dict):
            known = [key for key, part in data.items() if isinstance(part, dict)]
            raise ValueError(f"changes: '{name}': no section '{section}'; known are {known}")
        data = inner
    if last not in data or last == "name":
        known = [key for key in data if key != "name"]
        raise ValueError(f"changes: no field '{name}'; known are {', '.join(known)}")
    if isinstance(data[last], dict) and isinstance(value, Mapping):
        for inner_name, inner_value in value.items():
            _change(data[last], inner_name, inner_value)
        return
    data[last] = value
