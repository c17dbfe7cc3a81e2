"""The training loop. It knows neither DeepSpeed nor MLflow, no file, no signal and no objective.

An objective is an `nn.Module` from a batch to losses by name, scalars of this rank: `total`, which
is learned from, and parts of it that are only reported. Their names are the same at every step.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from pixclip.distributed import num_ranks, sum_over_ranks
from pixclip.training.schedule import rate_multiplier

Losses = dict[str, Tensor]


class TrainingBatch(Protocol):
    """One rank's part of a step, as an objective takes it."""

    @property
    def num_samples(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


AnyBatch = TypeVar("AnyBatch", bound=TrainingBatch)


class LoopEngine(Protocol):
    """What the loop needs; `pixclip.training.engine.Engine` has it."""

    device: torch.device

    def __call__(self, *arguments: Any) -> Any: ...
    def set_rates(self, multiplier: float) -> None: ...
    def rates(self) -> dict[str, float]: ...
    def backward(self, loss: Tensor) -> None: ...
    def step(self) -> float: ...


@dataclass(frozen=True)
class Plan:
    """Where a run begins and ends."""

    start_step: int
    num_steps: int
    warmup_steps: int


@dataclass(frozen=True)
class StepReport:
    """What a step gave, the same on all ranks but for the seconds."""

    step: int  # steps made so far, this one included
    epoch: int
    losses: dict[str, float]  # by name, over all ranks
    rates: dict[str, float]
    grad_norm: float
    num_samples: int  # over all ranks
    seconds: float
    wait_seconds: float  # of them, for the loader


Signals = tuple[bool, bool]  # save now, stop now


def fit(
    engine: LoopEngine,
    batches: Iterator[tuple[int, AnyBatch]],
    plan: Plan,
    *,
    read_signals: Callable[[int], Signals],
    on_step: Callable[[StepReport], None],
    save: Callable[[int], None],
) -> int:
    """Train from `plan.start_step` on; gives the number of steps made in the end.

    Args:
        engine: makes losses by name of a batch and learns from `total`.
        batches: this rank's batches with their epoch.
        plan: first and last step, warm-up.
        read_signals: what this rank wants after so many steps; one rank's wish counts for all.
        on_step: called for every step.
        save: keeps the state after so many steps; called on all ranks together, and at the end.

    Raises:
        FloatingPointError: the loss or a gradient is not finite.
    """
    for step in range(plan.start_step, plan.num_steps):
        started = time.perf_counter()
        epoch, batch = next(batches)
        batch = batch.to(engine.device)
        wait_seconds = time.perf_counter() - started
        engine.set_rates(rate_multiplier(step, plan.warmup_steps, plan.num_steps))
        rates = engine.rates()
        values, (save_now, stop_now), grad_norm = _learn(
            engine, batch, step, read_signals(step + 1)
        )
        seconds = time.perf_counter() - started
        num_samples = batch.num_samples * num_ranks()
        on_step(
            StepReport(
                step + 1, epoch, values, rates, grad_norm, num_samples, seconds, wait_seconds
            )
        )
        # What follows the last step may fail too, and must not cost the steps since the last state.
        if save_now or stop_now or step + 1 == plan.num_steps:
            save(step + 1)
        if stop_now:
            return step + 1
    return plan.num_steps


def _learn(
    engine: LoopEngine, batch: TrainingBatch, step: int, signals: Signals
) -> tuple[dict[str, float], Signals, float]:
    losses: Losses = engine(batch)
    # One exchange a step: the losses for the report, and who wants to save or stop.
    mine = torch.stack([loss.detach() for loss in losses.values()])
    wishes = torch.tensor(signals, dtype=mine.dtype, device=mine.device)
    *sums, save, stop = sum_over_ranks(torch.cat([mine, wishes])).tolist()
    values = {name: total / num_ranks() for name, total in zip(losses, sums, strict=True)}
    if not math.isfinite(values["total"]):
        raise FloatingPointError(
            f"the loss of step {step + 1} is not finite: {values}; the weights were not changed. "
            "Lower the learning rate, clip gradients (optimizer.max_grad_norm) or use "
            "precision=fp32; the last saved state is from before this step"
        )
    engine.backward(losses["total"])
    return values, (save > 0, stop > 0), engine.step()
