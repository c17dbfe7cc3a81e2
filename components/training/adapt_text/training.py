"""Start the ranks that adapt and measure, and bring the curves to MLflow."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.torchrun import run_ranks
from components.registry.runs import tracked_run
from components.training.adapt_text.settings import AdaptTextSettings
from pixclip.config import from_dict
from pixclip.json_files import JsonError, read_json_object
from pixclip.text.adapt_job import STAGES, AdaptJob
from pixclip.text.embeddings import tower_digest
from pixclip.training.job import read_steps, write_job

log = logging.getLogger(__name__)

RANK = "components.training.adapt_text.rank"
# In the working folder: pairs that are measured on, and what was measured.
EVAL_PAIRS, BEFORE, AFTER = "eval_pairs.parquet", "before.json", "after.json"
SAME_IN_JOB = (
    "base_model",
    "revision",
    "num_layers",
    "precision",
    "gradient_checkpointing",
    "seed",
    "device",
)
SECTIONS = ("text", "masked_tokens", "contrast", "lora", "whiten")
JOB_NAME, SENT_NAME = "job.json", "curves_sent"


def adapt(work: Path, settings: AdaptTextSettings) -> list[dict[str, Any]]:
    """Run the stages and measure, unless a run before has; gives the line of every step.

    Raises:
        SettingsError: there is no such base model.
        InputError, RanksFailed: the training failed.
        TrackingError: MLflow cannot be reached; the next call sends the curves of a finished tower.
        SystemExit: it was asked to stop; its state is saved.
    """
    job = make_job(work, settings)
    sent = work / SENT_NAME
    measured = [read_numbers(work / name) for name in (BEFORE, AFTER)]
    is_done = is_finished(job) and None not in measured
    if not (is_done and sent.exists()):
        with _curves_to_mlflow(job, settings):
            if not is_done:
                require_base_model(settings)
                write_job(work / JOB_NAME, job)
                run_ranks(RANK, work / JOB_NAME, num_ranks=settings.num_ranks)
        sent.touch()
    return read_lines(job)


def make_job(work: Path, settings: AdaptTextSettings) -> AdaptJob:
    """The job of the training processes."""
    values = settings.model_dump(include={*SAME_IN_JOB, *SECTIONS, "save_every_s"})
    files = {"pairs": str(work / "pairs.parquet"), "work": str(work)}
    return from_dict(AdaptJob, {**values, **files}, "adapt_text")


def require_base_model(settings: AdaptTextSettings) -> None:
    """Refuse a base model that is not there, before anything is started.

    Raises:
        SettingsError: it is not, or is none.
    """
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(
            settings.base_model, revision=settings.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"adapt_text.base_model={settings.base_model} cannot be opened: {error}"
        ) from error


def read_numbers(path: Path) -> dict[str, float] | None:
    """Numbers by name that were kept; none if they were not, or are damaged."""
    if not path.exists():
        return None
    try:
        kept = read_json_object(path)
    except JsonError as error:
        log.warning("%s; it is measured again", error)
        return None
    return {name: float(value) for name, value in kept.items()}


def is_finished(job: AdaptJob) -> bool:
    """Whether the tower is there as it was written; warns of one that is damaged."""
    if not job.tower.is_dir():
        return False
    mark = job.tower_mark.read_bytes() if job.tower_mark.is_file() else b""
    if tower_digest(job.tower).encode() == mark:
        return True
    log.warning("%s is damaged and is written again", job.tower)
    return False


def read_lines(job: AdaptJob) -> list[dict[str, Any]]:
    """The line of every step with its stage; none if no stage had a step."""
    return [
        {"stage": stage, **line} for stage in STAGES for line in read_steps(job.stage_work(stage))
    ]


@contextmanager
def _curves_to_mlflow(job: AdaptJob, settings: AdaptTextSettings) -> Iterator[None]:
    """Log every step's numbers when the training ends, also one that fails or is stopped."""
    with tracked_run(
        "adapt_text",
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        params=settings.model_dump(mode="json"),
    ) as run:
        try:
            yield
        finally:
            for line in read_lines(job):
                stage, number = line.pop("stage"), line.pop("step")
                run.log(number, {f"{stage}/{name}": value for name, value in line.items()})
