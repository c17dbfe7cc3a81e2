"""What is around the loop: states to resume from, signals, `steps.jsonl`, a progress bar.

Any objective trains so, whatever its batches are; see `train_stage`.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

import torch
from tqdm import tqdm

from pixclip.distributed import rank
from pixclip.files import write_whole
from pixclip.json_files import brief
from pixclip.training.engine import Engine
from pixclip.training.job import STATES, STEPS, read_steps
from pixclip.training.loop import Plan, Signals, StepReport, TrainingBatch, fit
from pixclip.training.states import load_state, random_state, save_state, set_random_state

STOPPED = 128 + signal.SIGTERM  # exit code of a run that saved its state and stopped


@dataclass(frozen=True)
class StageRun:
    """A stage of training: how long it is, and where its steps and states are."""

    title: str  # of the progress bar
    work: Path  # steps.jsonl, and states/ to resume from
    num_steps: int
    warmup_steps: int


def train_stage(
    engine: Engine,
    batches_from: Callable[[int], Iterator[tuple[int, TrainingBatch]]],
    run: StageRun,
    signals: "SaveSignals",
) -> bool:
    """Train a stage to its end, from its newest state on; `False` if it was stopped before.

    A run that goes on from a state has the losses of one that was never stopped, if batches and
    what the objective draws depend on the step, or on the generators of torch, NumPy and Python.

    Args:
        engine: with an objective: a module that makes losses by name of a batch.
        batches_from: this rank's batches with their epoch, from a step on.
        run: length and place.
        signals: when the state is saved, and whether to stop.

    Raises:
        ValueError: the states are of another model, or none of them is whole.
        FloatingPointError: the loss or a gradient is not finite.
    """
    states = run.work / STATES
    plan = Plan(_resume(engine, states), run.num_steps, run.warmup_steps)

    def save(step: int) -> None:
        save_state(states, step, {"step": step, "engine": engine.state(), "random": random_state()})

    with (
        progress_bar(run.title, run.num_steps, "step", plan.start_step) as bar,
        StepsFile(run.work, plan.start_step, bar) as steps,
    ):
        batches = batches_from(plan.start_step)
        num_made = fit(
            engine, batches, plan, read_signals=signals.read, on_step=steps.write, save=save
        )
    return num_made == run.num_steps


def _resume(engine: Engine, states: Path) -> int:
    state = load_state(states, engine.device)
    if state is None:
        return 0
    try:
        engine.load_state(state["engine"])
        set_random_state(state["random"])
        return int(state["step"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"the states in {states} are of another version or model ({brief(repr(error))}); "
            "remove the folder to train from the start"
        ) from error


def progress_bar(title: str, total: int, unit: str, start: int = 0) -> "tqdm[Any]":
    """The bar of a part of a training; only rank 0 draws it."""
    return tqdm(
        desc=title,
        initial=start,
        total=total,
        unit=f" {unit}",
        mininterval=0.2 if sys.stderr.isatty() else 30,
        disable=rank() > 0,
    )


class SaveSignals:
    """Reads the clock and SIGTERM, over one stage or several; use it as a context manager."""

    def __init__(self, every_s: float, every_steps: int = 0) -> None:
        self._every_s, self._every_steps = every_s, every_steps  # 0 steps: by the clock alone
        self._saved_at = time.monotonic()
        self._is_stopped = False

    def __enter__(self) -> "SaveSignals":
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def read(self, step: int) -> Signals:
        """Save, and stop, once so many steps are made; only rank 0 looks at the clock."""
        is_due = time.monotonic() - self._saved_at >= self._every_s
        is_due = is_due or (bool(self._every_steps) and step % self._every_steps == 0)
        save = rank() == 0 and is_due
        if save:
            self._saved_at = time.monotonic()
        return save, self._is_stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopped = True


class StepsFile:
    """`steps.jsonl`: one line a step with losses, rates, speed and memory; written by rank 0.

    Every step is appended; those after the one that a run resumes from are cut off first.
    """

    def __init__(self, work: Path, start_step: int, bar: "tqdm[Any]") -> None:
        self._path, self._bar = work / STEPS, bar
        self._file: IO[str] | None = None
        if rank() == 0:
            work.mkdir(parents=True, exist_ok=True)
            kept = [
                f"{json.dumps(line)}\n" for line in read_steps(work) if line["step"] <= start_step
            ]
            write_whole(self._path, "".join(kept))

    def __enter__(self) -> "StepsFile":
        if rank() == 0:
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, report: StepReport) -> None:
        """Append a step and move the progress bar."""
        if self._file is None:
            return
        line = step_line(report)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._bar.update(1)
        self._bar.set_postfix(
            loss=f"{line['loss']:.3f}", samples_s=f"{line['samples_per_s']:.0f}", refresh=False
        )


def step_line(report: StepReport) -> dict[str, float]:
    """A step as plain numbers under the names of the curves: `loss` is the objective's total."""
    parts = {f"loss_{name}": loss for name, loss in report.losses.items() if name != "total"}
    return {
        "step": report.step,
        "epoch": report.epoch,
        "loss": report.losses["total"],
        **parts,
        **{f"lr_{name}": rate for name, rate in report.rates.items() if "_no_decay" not in name},
        "grad_norm": report.grad_norm,
        "samples_per_s": round(report.num_samples / report.seconds, 3),
        "data_wait_share": round(report.wait_seconds / report.seconds, 4),
        "memory_gb": round(_peak_memory_bytes() / 1e9, 3),
    }


def _peak_memory_bytes() -> int:
    """The most memory this rank has used: of its GPU, or of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
