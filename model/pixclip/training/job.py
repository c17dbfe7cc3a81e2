"""What the ranks of a training are asked to do, and why one failed: files of JSON. Without torch.

The process that starts them only sees a number, so a rank leaves its reason beside its job.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from pixclip.config import Config, from_dict, to_dict
from pixclip.files import write_whole
from pixclip.json_files import JsonError, brief, read_json_lines, read_json_object
from pixclip.training.config import PartStage, Stage

STEPS, STATES = "steps.jsonl", "states"
FAILURE_NAME = "failure.json"
# What this library raises of data, models and settings that cannot be used: the same again.
REFUSALS = (ValueError, KeyError, FileNotFoundError)

JobT = TypeVar("JobT", bound=Config)

log = logging.getLogger(__name__)


class AnyJob(Config):
    """One stage of training on given data."""

    parent: str  # checkpoint to start from, a folder
    dataset: str  # data set, a folder or an s3:// address
    work: str  # steps.jsonl, and states/ to resume from
    checkpoint: str  # where the trained model goes in the end
    device: Literal["auto", "cpu"] = "auto"  # auto takes the GPUs if there are any
    num_workers: int = Field(0, ge=0)  # processes of each rank that read data
    save_every_steps: int = Field(500, ge=1)
    save_every_s: float = Field(600.0, gt=0)
    notes: dict[str, Any] = Field(default_factory=dict)  # for the checkpoint's notes.json


class Job(AnyJob):
    """A stage of PixCLIP."""

    stage: Stage
    text_embeddings: str  # folder
    # Regions in the tower at a time; 0: a rank's whole batch.
    micro_batch_size: int = Field(0, ge=0)


class PartJob(AnyJob):
    """A stage of PA-CLIP, whose text tower is in the parent."""

    stage: PartStage


def write_job(path: Path, job: Config) -> None:
    """Write what ranks are asked to do; `read_job` gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(to_dict(job), indent=1))  # ranks of before may be reading it


def read_job(path: Path, kind: type[JobT]) -> JobT:
    """The job of a file, which is of this kind.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    return from_dict(kind, json.loads(path.read_text(encoding="utf-8")), "job")


def read_steps(work: Path, after: int = 0) -> list[dict[str, Any]]:
    """The whole lines of a stage's `steps.jsonl` after a step; none if there is no file yet."""
    lines = read_json_lines(work / STEPS, {"step": int, "loss": float})
    return [line for line in lines if line["step"] > after]


@dataclass(frozen=True)
class Failure:
    """Why a rank ended; a refusal is the fault of data or settings, and a retry is of no use."""

    message: str
    is_refusal: bool


@contextmanager
def failure_told(job: Path) -> Iterator[None]:
    """Leave word of an error; one that names its reason itself ends without a traceback."""
    try:
        yield
    except (*REFUSALS, FloatingPointError) as error:
        _tell(job, Failure(str(error), is_refusal=isinstance(error, REFUSALS)))
        log.error("%s", error)
        log.debug("where it was raised", exc_info=True)
        sys.exit(1)
    except Exception as error:
        _tell(job, Failure(brief(f"{type(error).__name__}: {error}"), is_refusal=False))
        raise


def read_failure(job: Path) -> Failure | None:
    """What a rank has left word of, if any."""
    try:
        found = read_json_object(job.with_name(FAILURE_NAME))
        return Failure(str(found["message"]), bool(found["is_refusal"]))
    except (JsonError, KeyError):
        return None


def forget_failure(job: Path) -> None:
    """Remove what ranks of an earlier attempt have left."""
    job.with_name(FAILURE_NAME).unlink(missing_ok=True)


def _tell(job: Path, failure: Failure) -> None:
    path = job.with_name(FAILURE_NAME)
    with suppress(OSError):  # a full disk: the log has it
        path.write_text(json.dumps(asdict(failure)) + "\n", encoding="utf-8")
