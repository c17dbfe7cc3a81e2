"""The loop of an adaptation's stage: steps, states to resume from, one JSON line a step."""

import json
import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pixclip.distributed import num_ranks, rank, sum_over_ranks
from pixclip.files import write_whole
from pixclip.json_files import brief, read_json_lines
from pixclip.text.adapt.job import AdaptJob, Contrast, MaskedTokens
from pixclip.text.adapt.stages import LossOf
from pixclip.training.checkpoints import load_state, save_state
from pixclip.training.engine import Engine
from pixclip.training.optimizer import rate_share

STOPPED = 128 + signal.SIGTERM  # exit code of a run that saved its state and stopped


class StopRequest:
    """Remembers SIGTERM, so that a step ends and is saved first."""

    def __init__(self) -> None:
        self.is_made = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.is_made = True


@dataclass(frozen=True)
class StageRun:
    """A stage with what it runs on."""

    name: str
    config: MaskedTokens | Contrast
    engine: Engine
    loss_of: LossOf
    stop: StopRequest


def run_stage(run: StageRun, job: AdaptJob) -> None:
    """Train a stage to its end, from its newest state on.

    Raises:
        SystemExit: SIGTERM came; the state is saved.
        FloatingPointError: the loss or a gradient is not finite.
    """
    states = Path(job.work) / f"states-{run.name}"
    start = _resume(run.engine, states)
    keep_lines(job.steps, run.name, start)
    saved_at = time.monotonic()
    with progress_bar(run.name, run.config.num_steps, "step", start) as bar:
        for step in range(start, run.config.num_steps):
            is_due = rank() == 0 and time.monotonic() - saved_at >= job.save_every_s
            line, save, stop = _learn(run, step, is_due)
            if rank() == 0:
                _append(job.steps, line)
                bar.update(1)
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
            if save or stop:
                state = {"step": step + 1, "engine": run.engine.state()}
                save_state(states, step + 1, state)
                saved_at = time.monotonic()
            if stop:
                sys.exit(STOPPED)


def _learn(run: StageRun, step: int, is_due: bool) -> tuple[dict[str, Any], bool, bool]:
    """One step; gives its line and whether any rank wants to save or to stop."""
    started = time.perf_counter()
    config = run.config
    run.engine.set_rate_share(rate_share(step, config.warmup_steps, config.num_steps))
    rates = run.engine.rates()
    loss = run.loss_of(step)
    mine = torch.tensor([float(loss.detach()), is_due, run.stop.is_made], device=loss.device)
    total, save, stop = sum_over_ranks(mine).tolist()
    if not math.isfinite(total):
        raise FloatingPointError(
            f"the loss of step {step + 1} of {run.name} is not finite; lower its learning rate or "
            "use precision=fp32. The last saved state is from before this step"
        )
    run.engine.backward(loss)
    grad_norm = run.engine.step()
    line = {
        "stage": run.name,
        "step": step + 1,
        "loss": total / num_ranks(),
        "lr": next(iter(rates.values())),
        "grad_norm": grad_norm,
        "captions_per_s": round(config.batch_size / (time.perf_counter() - started), 3),
    }
    return line, save > 0, stop > 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of `steps.jsonl`; the curves lack those that are damaged, and nothing else does."""
    return read_json_lines(path, {"stage": str, "step": int, "loss": float})


def _resume(engine: Engine, states: Path) -> int:
    state = load_state(states, engine.device)
    if state is None:
        return 0
    try:
        engine.load_state(state["engine"])
        return int(state["step"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"the states in {states} are of another version or model ({brief(repr(error))}); "
            "remove the folder to train the stage from its start"
        ) from error


def progress_bar(what: str, total: int, unit: str, start: int = 0) -> "tqdm[Any]":
    """The bar of a part of the adaptation; only rank 0 draws it."""
    return tqdm(
        desc=f"adapt_text: {what}",
        initial=start,
        total=total,
        unit=f" {unit}",
        mininterval=0.2 if sys.stderr.isatty() else 30,
        disable=rank() > 0,
    )


def keep_lines(path: Path, stage: str, last_step: int) -> None:
    """Cut off the lines of steps that a resumed stage makes anew."""
    if rank() > 0 or not path.exists():
        return
    kept = [
        f"{json.dumps(line)}\n"
        for line in read_lines(path)
        if line["stage"] != stage or line["step"] <= last_step
    ]
    write_whole(path, "".join(kept))


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
