"""One rank of a test: a few steps on its part of the batch; the results go to a file.

torchrun --nproc-per-node 2 tests/pixclip/training/two_ranks.py FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from pixclip.distributed import num_ranks, rank
from pixclip.training.engine import Engine, open_engine, ranks_leave_together
from pixclip.training.loop import Plan, fit
from pixclip.training.pixclip import PixClipObjective
from pixclip.training.schedule import freeze_other_parts, parameter_groups
from tests.pixclip.training.small import random_batch, small_model, stage

NUM_STEPS = 3


def part_of_batch(seed: int):
    """This rank's images of the batch, with unequal numbers of full-image samples."""
    share = 4 // num_ranks()
    return random_batch(seed, slice(rank() * share, (rank() + 1) * share))


def gradients() -> dict[str, torch.Tensor]:
    """The gradients of the first batch, averaged over ranks, without DeepSpeed."""
    model = small_model()
    PixClipObjective(model, stage().losses)(part_of_batch(0))["total"].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    if num_ranks() > 1:
        for gradient in found.values():
            dist.all_reduce(gradient)
            gradient /= num_ranks()
    return found


def open_small_engine(model, used) -> Engine:
    """The engine of a training stage."""
    freeze_other_parts(model, used.trainable)
    return open_engine(
        PixClipObjective(model, used.losses),
        parameter_groups(model, used.optimizer),
        max_grad_norm=0.5,
    )


def run() -> dict[str, object]:
    """Some steps through DeepSpeed ZeRO-2."""
    model, used = small_model(), stage()
    engine = open_small_engine(model, used)
    reports = []
    fit(
        engine,
        ((0, part_of_batch(seed)) for seed in range(NUM_STEPS)),
        Plan(0, NUM_STEPS, used.optimizer.warmup_steps),
        read_signals=lambda step: (False, False),
        on_step=reports.append,
        save=lambda step: None,
    )
    return {
        "losses": [report.losses for report in reports],
        "norms": [report.grad_norm for report in reports],
        "weights": {name: weight.detach().clone() for name, weight in model.named_parameters()},
        "gradients": gradients(),
    }


def main() -> None:
    """Write this rank's results."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with ranks_leave_together():
        torch.save(run(), folder / f"{num_ranks()}-{rank()}.pt")


if __name__ == "__main__":
    main()
