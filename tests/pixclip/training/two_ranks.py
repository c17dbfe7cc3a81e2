"""One rank of a test: a few steps on its part of the batch; the results go to a file.

torchrun --nproc-per-node 2 tests/pixclip/training/two_ranks.py FOLDER
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pixclip.distributed import num_ranks, rank
from pixclip.model import PixClip
from pixclip.training.config import AnyStage
from pixclip.training.engine import Engine, open_engine, ranks_leave_together
from pixclip.training.loop import Plan, fit
from pixclip.training.paclip import PaClipObjective
from pixclip.training.pixclip import PixClipObjective
from pixclip.training.schedule import freeze_other_parts, parameter_groups
from tests.pixclip.training.small import hard_stage, random_batch, small_model, stage
from tests.pixclip.training.small_parts import part_stage, random_parts, small_part_model

NUM_STEPS = 3


@dataclass(frozen=True)
class World:
    """What is trained: a model, its stage, its objective, and a batch of four images."""

    model: Callable[[], PixClip]
    stage: Callable[[], AnyStage]
    objective: Callable[[PixClip, Any], nn.Module]
    batch: Callable[[int, slice], Any]  # of a seed, and of some images


WORLDS = {
    "pixclip": World(small_model, stage, PixClipObjective, random_batch),
    "pixclip_hard": World(small_model, hard_stage, PixClipObjective, random_batch),
    "paclip": World(small_part_model, part_stage, PaClipObjective, random_parts),
}


def part_of_batch(world: World, seed: int):
    """This rank's images of the batch, with unequal numbers of full-image samples and parts."""
    share = 4 // num_ranks()
    return world.batch(seed, slice(rank() * share, (rank() + 1) * share))


def gradients(world: World) -> dict[str, torch.Tensor]:
    """The gradients of the first batch, averaged over ranks, without DeepSpeed."""
    objective = world.objective(world.model(), world.stage().losses)
    objective(part_of_batch(world, 0))["total"].backward()
    found = {name: parameter.grad for name, parameter in objective.named_parameters()}
    if num_ranks() > 1:
        for gradient in found.values():
            dist.all_reduce(gradient)
            gradient /= num_ranks()
    return found


def open_small_engine(objective: nn.Module, used: AnyStage) -> Engine:
    """The engine of a training stage."""
    freeze_other_parts(objective.model, used.trainable)
    return open_engine(objective, parameter_groups(objective, used.optimizer), max_grad_norm=0.5)


def run(world: World) -> dict[str, object]:
    """Some steps through DeepSpeed ZeRO-2."""
    used = world.stage()
    objective = world.objective(world.model(), used.losses)
    engine = open_small_engine(objective, used)
    reports = []
    fit(
        engine,
        ((0, part_of_batch(world, seed)) for seed in range(NUM_STEPS)),
        Plan(0, NUM_STEPS, used.optimizer.warmup_steps),
        read_signals=lambda step: (False, False),
        on_step=reports.append,
        save=lambda step: None,
    )
    weights = objective.named_parameters()
    return {
        "losses": [report.losses for report in reports],
        "norms": [report.grad_norm for report in reports],
        "weights": {name: weight.detach().clone() for name, weight in weights},
        "gradients": gradients(world),
    }


def main() -> None:
    """Write this rank's results."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with ranks_leave_together():
        for name, world in WORLDS.items():
            torch.save(run(world), folder / f"{name}-{num_ranks()}-{rank()}.pt")


if __name__ == "__main__":
    main()
