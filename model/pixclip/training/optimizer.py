"""Which parameters learn, how fast, and how the rate changes over a run."""

import math
from typing import Any

from torch import nn

from pixclip.training.config import OptimizerConfig, Part, Stage

ParamGroup = dict[str, Any]  # as torch optimisers take it: params, lr, weight_decay, name


def rate_share(step: int, warmup_steps: int, num_steps: int) -> float:
    """The share of the peak learning rate at a step, in [0, 1].

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
    """Which part of PixClip a parameter belongs to, by its name."""
    if name.startswith("vision.mask_embed."):
        return "mask"
    parts: dict[str, Part] = {part: part for part in ("vision", "adaptor", "logit_scale")}
    return parts[name.split(".")[0]]


def freeze_other_parts(model: nn.Module, stage: Stage) -> None:
    """Take the parts that a stage does not train out of the graph."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in stage.trainable)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[ParamGroup]:
    """The trained parameters in groups by name: the mask convolution with its bias, the rest.

    Each is split once more: matrices, convolutions and position embeddings have weight decay;
    norms, biases, the class embedding and the logit scale (one dimension) have none.
    """
    groups: dict[str, ParamGroup] = {}
    for name, parameter in model.named_parameters():
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
