"""What one training process is asked to do, as a JSON file. Without torch."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pixclip.config import Config, from_dict, to_dict
from pixclip.training.config import Stage

STEPS, STATES = "steps.jsonl", "states"


class Job(Config):
    """One stage of training on given data."""

    stage: Stage
    parent: str  # checkpoint to start from, a folder
    longgrit: str  # data set, a folder or an s3:// address
    text_embeddings: str  # folder
    work: str  # steps.jsonl, and states/ to resume from
    checkpoint: str  # where the trained model goes in the end
    device: Literal["auto", "cpu"] = "auto"  # auto takes the GPUs if there are any
    num_workers: int = Field(0, ge=0)  # processes of each rank that read data
    # Regions in the tower at a time; 0: a rank's whole batch.
    micro_batch_size: int = Field(0, ge=0)
    save_every_steps: int = Field(500, ge=1)
    save_every_s: float = Field(600.0, gt=0)
    notes: dict[str, Any] = Field(default_factory=dict)  # for the checkpoint's notes.json


def write_job(path: Path, job: Job) -> None:
    """Write a job; `read_job` gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(job), indent=1), encoding="utf-8")


def read_job(path: Path) -> Job:
    """The job of a file.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    return from_dict(Job, json.loads(path.read_text(encoding="utf-8")), "job")
