"""The optimiser's settings: which parameters learn, how fast, and the learning rate's schedule.

Without torch, so that settings can be checked quickly.
"""

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, Strict

from pixclip.config import Config

if TYPE_CHECKING:
    from torch import nn

ParamGroup = dict[str, Any]  # as torch optimisers take it: params, lr, weight_decay, name
Part = Literal["mask", "vision", "adaptor", "text", "logit_scale"]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW, a linear warm-up, then a cosine down to zero at the last step (paper, Table 9)."""

    mask_lr: NotNegative = 1e-5  # the mask convolution, its bias included
    rest_lr: NotNegative = 1e-7  # everything else that is trained
    # Of matrices and convolutions; norms, biases and scale have none.
    weight_decay: NotNegative = 1e-2
    betas: Annotated[tuple[BelowOne, BelowOne], Strict(False)] = (0.9, 0.999)
    warmup_steps: int = Field(800, ge=0)
    max_grad_norm: NotNegative = 0.0  # gradients are scaled down to this norm; 0 never


def rate_multiplier(step: int, warmup_steps: int, num_steps: int) -> float:
    """The learning rate's schedule: what the peak is multiplied by at a step, in [0, 1].

    A linear warm-up whose first step already learns, the peak at step `warmup_steps - 1`, then
    half a cosine that reaches 0 after the last step and stays there: it never rises again. A run
    shorter than its warm-up ends while it warms up.
    """
    if step >= num_steps:
        return 0.0
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))


def part_of(name: str) -> Part:
    """Which part of PixClip a parameter belongs to, by its name in the model or its objective."""
    name = name.removeprefix("model.")
    if name.startswith("vision.mask_embed."):
        return "mask"
    parts: dict[str, Part] = {part: part for part in get_args(Part)}
    return parts[name.removeprefix("part_").split(".")[0]]


def freeze_other_parts(model: "nn.Module", trainable: Collection[Part]) -> None:
    """Take the parts that are not trained out of the graph."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in trainable)


def parameter_groups(module: "nn.Module", config: OptimizerConfig) -> list[ParamGroup]:
    """The trained parameters in groups by name: the mask convolution with its bias, the rest.

    Of a model, or of an objective around one, whose own parameters train as scales do.

    Each is split once more: matrices, convolutions and position embeddings have weight decay;
    norms, biases, the class embedding and the logit scale (one dimension) have none.
    """
    groups: dict[str, ParamGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_mask, has_decay = part_of(name) == "mask", parameter.ndim > 1
        key = ("mask" if is_mask else "rest") + ("" if has_decay else "_no_decay")
        group = {
            "name": key,
            "params": [],
            "lr": config.mask_lr if is_mask else config.rest_lr,
            "weight_decay": config.weight_decay if has_decay else 0.0,
        }
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())
