"""Recipes: complete configurations as plain functions, and changes to them by dotted names."""

import math
from collections.abc import Mapping
from typing import Any

from pixclip.config import AdaptorConfig, from_dict, to_dict
from pixclip.data.config import DataConfig
from pixclip.training.config import LossConfig, OptimizerConfig, Recipe, Stage


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


def tiny() -> Recipe:
    """A small model from scratch on two CPU cores in minutes: same code path, tiny sizes.

    At a scale of 100 random weights are far worse than chance and the first steps only undo that,
    so the scale starts where CLIP's started, at 1 / 0.07, and learns.

    First only L_CL, which is a third of the work a step; then all three branches. Three regions
    of a scene come together, so that telling siblings apart is a part of every batch.
    """
    optimizer = OptimizerConfig(
        mask_lr=1e-3, rest_lr=1e-3, weight_decay=0.05, warmup_steps=20, max_grad_norm=1.0
    )
    data = DataConfig(batch_size=64, regions_per_image=3, needs_crops=False)
    align = Stage(
        name="align",
        losses=LossConfig(alpha=0.0, beta=0.0),
        data=data,
        optimizer=optimizer,
        num_epochs=24,
        trainable=("mask", "vision", "adaptor", "logit_scale"),
        precision="fp32",
    )
    refine = align.changed(
        name="refine",
        losses=LossConfig(),
        data=data.changed(needs_crops=True, seed=1),
        optimizer=optimizer.changed(mask_lr=3e-4, rest_lr=3e-4),
        num_epochs=6,
    )
    return Recipe(
        name="tiny",
        architecture="tiny",
        embed_dim=256,
        adaptor=AdaptorConfig(num_layers=1),
        logit_scale=math.log(1 / 0.07),
        stages=(align, refine),
    )


RECIPES = {recipe.__name__: recipe() for recipe in (pixclip_b16_paper, pixclip_l14, tiny)}


def find_stage(recipe: str, stage: str, changes: Mapping[str, Any] | None = None) -> Stage:
    """A recipe's stage, with changes by dotted name, e.g. `{"optimizer.rest_lr": 1e-6}`.

    `{"optimizer": {"rest_lr": 1e-6}}` is the same: the section's other fields stay.

    Raises:
        ValueError: no such recipe, stage or field, or a value of the wrong type or range.
    """
    if recipe not in RECIPES:
        raise ValueError(f"no recipe '{recipe}'; known are {', '.join(RECIPES)}")
    stages = {known.name: known for known in RECIPES[recipe].stages}
    if stage not in stages:
        raise ValueError(f"recipe '{recipe}' has no stage '{stage}'; it has {', '.join(stages)}")
    data = to_dict(stages[stage])
    for name, value in (changes or {}).items():
        _change(data, name, value)
    return from_dict(Stage, data)


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
