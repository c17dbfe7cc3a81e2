"""Adapt through torchrun, measure before and after, and bring the curves to MLflow."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from components.core.errors import SettingsError
from components.core.files import write_whole
from components.core.torchrun import run_ranks
from components.registry.runs import tracked_run
from components.training.adapt_text.settings import AdaptTextSettings
from pixclip.config import TextConfig, from_dict
from pixclip.json_files import JsonError, read_json_object
from pixclip.text.adapt import short_to_long_recall
from pixclip.text.adapt_job import STAGES, AdaptJob
from pixclip.text.embeddings import tower_digest
from pixclip.text.encoder import TextEncoder
from pixclip.text.language_model import damage_told, open_language_model
from pixclip.training.job import read_steps, write_job

log = logging.getLogger(__name__)

CaptionPairs = tuple[list[str], list[str]]  # short and long captions, row by row
SAME_IN_JOB = (
    "base_model",
    "revision",
    "num_layers",
    "precision",
    "gradient_checkpointing",
    "seed",
)
SECTIONS = ("text", "masked_tokens", "contrast", "lora", "whiten")
JOB_NAME, SENT_NAME = "job.json", "curves_sent"


def adapt(work: Path, settings: AdaptTextSettings) -> list[dict[str, Any]]:
    """Run the stages, unless a run before has finished them; gives the line of every step.

    Raises:
        RanksFailed: the training failed.
        TrackingError: MLflow cannot be reached; the next call sends the curves of a finished tower.
        SystemExit: it was asked to stop; its state is saved.
    """
    job = make_job(work, settings)
    sent = work / SENT_NAME
    is_done = is_finished(job)
    if not (is_done and sent.exists()):
        with _curves_to_mlflow(job, settings):
            if not is_done:
                write_job(work / JOB_NAME, job)
                run_ranks("pixclip.text.adapt", work / JOB_NAME, num_ranks=settings.num_ranks)
        sent.touch()
    return read_lines(job)


def make_job(work: Path, settings: AdaptTextSettings) -> AdaptJob:
    """The job of the training processes."""
    values = settings.model_dump(include={*SAME_IN_JOB, *SECTIONS, "save_every_s"})
    files = {"pairs": str(work / "pairs.parquet"), "work": str(work)}
    return from_dict(AdaptJob, {**values, **files}, "adapt_text")


def measure_base(settings: AdaptTextSettings, pairs: CaptionPairs) -> dict[str, float]:
    """Retrieval by the base model, which reads both ways and is not trained for it.

    Raises:
        SettingsError: there is no such base model, or it cannot be used.
    """
    device = choose_device(settings.device)
    try:
        body = open_language_model(
            settings.base_model,
            revision=settings.revision,
            with_head=False,
            dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            num_layers=settings.num_layers,
        ).to(device)
        with damage_told(f"the tokenizer of {settings.base_model}"):
            tokenizer = AutoTokenizer.from_pretrained(
                settings.base_model, revision=settings.revision, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"adapt_text.base_model={settings.base_model} cannot be opened: {error}"
        ) from error
    config = TextConfig(embed_dim=body.config.hidden_size, **settings.text.model_dump())
    return short_to_long_recall(TextEncoder(body, tokenizer, config), *pairs)


def measure_tower(
    tower: Path, settings: AdaptTextSettings, pairs: CaptionPairs
) -> dict[str, float]:
    """Retrieval by the finished tower, as it was saved."""
    encoder = TextEncoder.open(tower, device=choose_device(settings.device))
    return short_to_long_recall(encoder, *pairs)


def choose_device(name: str) -> str:
    """`auto` is the first GPU if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def once(path: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` gives, kept for a run that is resumed."""
    kept = read_numbers(path)
    if kept is None:
        write_whole(path, json.dumps(measure()))
        kept = read_numbers(path)
    assert kept is not None
    return kept


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
