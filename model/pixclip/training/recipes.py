"""Recipes: complete configurations of a training as plain functions, and changes by dotted names.

What they are made of comes first: losses, stages, recipes. Without torch.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pixclip.config import ARCHITECTURES, AdaptorConfig, Config, from_dict, to_dict
from pixclip.data.config import MOST, DataConfig
from pixclip.training.schedule import BelowOne, NotNegative, OptimizerConfig, Part

LN_100 = 4.605170185988092  # see docs/decisions/0006-logit-scale.md
MOST_STEPS = 10**12


class LossConfig(Config):
    """The total loss (eq. 7) and how its open points are read.

    Full-image samples belong to L_CL only: their crop is the image itself, and their pooled
    patches are its mean, so both other branches would ask the model to copy itself.
    """

    alpha: NotNegative = 0.25  # weight of L_FC (eq. 4); 0 leaves the crop branch out
    beta: NotNegative = 0.25  # weight of L_LG (eq. 6); 0 leaves the dense branch out
    # What the crop's embedding v_c is matched with; the paper's t_c has no definition.
    # text: the region's text e_t. region: the region's own embedding e_v, against the batch.
    # region_positives: e_v again, but 1 - cosine of the matching pair alone.
    fc_target: Literal["text", "region", "region_positives"] = "text"
    # What the pooled patches f'_v are matched with (f_v of eq. 6): the region's embedding, as the
    # prose says ("mutually enhances the initial mask embedding"), or its text.
    lg_target: Literal["region", "text"] = "region"
    lg_stop_gradient: bool = False  # eq. 6 teaches only the patches, not the region's embedding
    coverage_threshold: BelowOne = 0.5  # tau of eq. 5: a patch belongs to a mask that covers more
    label_smoothing: BelowOne = 0.0  # AlphaCLIP's code has 0.1; the paper says nothing
    # Another sample with the very same text is not a wrong answer.
    same_text: Literal["ignore", "negative"] = "ignore"
    # Rows of the similarity matrix in memory at a time.
    chunk_size: int = Field(1024, ge=1)


class Stage(Config):
    """One part of a training run, from a checkpoint to a checkpoint."""

    name: str
    losses: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    num_epochs: int = Field(1, ge=1, le=MOST)
    # Ends the stage earlier or later than its epochs; 0 is epochs.
    num_steps: int = Field(0, ge=0, le=MOST_STEPS)
    # The other parts stay as they are.
    trainable: Annotated[tuple[Part, ...], Strict(False)] = ("mask", "vision")
    precision: Literal["fp32", "bf16"] = "bf16"  # of matrix products; weights are always fp32
    gradient_checkpointing: bool = False  # less memory for a third more time

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not self.trainable:
            raise ValueError(f"stage {self.name}: trainable must name a part of the model")
        if bool(self.losses.alpha) != self.data.needs_crops:
            raise ValueError(
                f"stage {self.name}: data.needs_crops={self.data.needs_crops} does not fit "
                f"losses.alpha={self.losses.alpha}; crops are for L_FC, so change both"
            )
        return self


class Recipe(Config):
    """A model and how it is trained, stage by stage."""

    name: str
    architecture: str  # one of pixclip.config.ARCHITECTURES
    embed_dim: int  # width of the space that images and texts share
    adaptor: AdaptorConfig = AdaptorConfig()
    logit_scale: float = LN_100  # natural logarithm of the factor of cosines
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"recipe {self.name}: no architecture '{self.architecture}'; "
                f"known are {', '.join(ARCHITECTURES)}"
            )
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"recipe {self.name}: stages need distinct names, got {names}")
        return self


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
        num_epochs=10,
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
