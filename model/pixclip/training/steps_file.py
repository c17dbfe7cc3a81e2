"""`steps.jsonl`: one line a step with losses, rates, speed and memory; written by rank 0."""

import json
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from tqdm import tqdm

from pixclip.distributed import rank
from pixclip.files import write_whole
from pixclip.json_files import read_json_lines
from pixclip.training.job import STEPS
from pixclip.training.loop import StepReport


class StepsFile:
    """Appends every step; steps after the one that a run resumes from are cut off first."""

    def __init__(self, work: Path, start_step: int, bar: "tqdm[Any]") -> None:
        self._path, self._bar = work / STEPS, bar
        self._file: IO[str] | None = None
        if rank() == 0:
            lines = read_json_lines(self._path, {"step": int, "loss": float})
            kept = [f"{json.dumps(line)}\n" for line in lines if line["step"] <= start_step]
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
    """A step as plain numbers under the names of the curves."""
    return {
        "step": report.step,
        "epoch": report.epoch,
        "loss": report.losses["total"],
        "loss_cl": report.losses["cl"],
        "loss_fc": report.losses["fc"],
        "loss_lg": report.losses["lg"],
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
