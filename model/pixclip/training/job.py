"""What one training process is asked to do, as a JSON file. Without torch."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pixclip.config import from_dict, to_dict
from pixclip.training.config import Stage

STEPS, STATES = "steps.jsonl", "states"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage of training on given data."""

    stage: Stage
    parent: str  # checkpoint to start from, a folder
    longgrit: str  # data set, a folder or an s3:// address
    text_embeddings: str  # folder
    work: str  # steps.jsonl, and states/ to resume from
    checkpoint: str  # where the trained model goes in the end
    device: Literal["auto", "cpu"] = "auto"  # auto takes the GPUs if there are any
    num_workers: int = 0  # processes of each rank that read data
    micro_batch_size: int = 0  # regions in the tower at a time; 0: a rank's whole batch
    save_every_steps: int = 500
    save_every_s: float = 600.0
    notes: dict[str, Any] = field(default_factory=dict)  # for the checkpoint's notes.json

    def __post_init__(self) -> None:
        for name in ("num_workers", "micro_batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.save_every_steps < 1 or self.save_every_s <= 0:
            raise ValueError(
                "save_every_steps and save_every_s must be positive, "
                f"got {self.save_every_steps} and {self.save_every_s}"
            )


def write_job(path: Path, job: Job) -> None:
    """Write a job; `read_job` gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(job), indent=1), encoding="utf-8")


def read_job(path: Path) -> Job:
    """The job of a file.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    notes = data.pop("notes")
    job: Job = from_dict(Job, data, "job")
    return replace(job, notes=notes)
