"""The step that trains one stage of a recipe.

Its curves are followed into MLflow while it runs, and written as CSV at its end.

pixclip train --dataset … --text-embeddings … --parent … --checkpoint … --curves … \
    --set recipe=tiny --set stage=align --set num_ranks=2
"""

import csv
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from components.core.digests import file_sha256
from components.core.errors import InputError
from components.core.files import write_whole
from components.core.receipts import input_digest
from components.core.step import In, Metrics, Out, StepSettings, Work, per_task, runtime, step
from components.core.tables import WORK_FOLDER
from components.registry.runs import Run
from components.registry.store import TrackingError
from pixclip.checksums import WEIGHTS_NAME, weights_digest
from pixclip.config import to_dict
from pixclip.data.layout import MANIFEST_NAME
from pixclip.json_files import JsonError, read_json_object
from pixclip.training.job import Job, read_steps, write_job
from pixclip.training.recipes import RECIPES, Stage, find_stage

log = logging.getLogger(__name__)

JOB, RUN_ID, LOGGED = "job.json", "mlflow_run", "mlflow_step"
SAME_IN_JOB = ("num_workers", "micro_batch_size", "save_every_steps", "save_every_s", "device")
STAGES = "; ".join(
    f"{', '.join(stage.name for stage in recipe.stages)} of {name}"
    for name, recipe in RECIPES.items()
)


class TrainSettings(StepSettings):
    """Which stage of which recipe, what is changed of it, and how it runs."""

    recipe: str = Field("tiny", description=f"one of {', '.join(RECIPES)}")
    stage: str = per_task("align", f"stage of the recipe, of which pipelines take all: {STAGES}")
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="changes of the stage by dotted name, e.g. {optimizer.rest_lr: 1.0e-6}",
    )
    num_ranks: int = runtime(1, "processes that train together, one a GPU", ge=1)
    num_workers: int = runtime(0, "processes of each rank that read data", ge=0)
    micro_batch_size: int = runtime(
        0, "regions of a rank in the tower at a time; 0: its whole batch (GradCache)", ge=0
    )
    device: Literal["auto", "cpu"] = runtime("auto", "auto takes the GPUs if there are any")
    save_every_steps: int = runtime(
        500, "steps between states that a killed run resumes from", ge=1
    )
    save_every_s: float = runtime(600.0, "seconds between such states at most", gt=0)
    tracking_uri: str = runtime("", "MLflow server; empty: MLFLOW_TRACKING_URI, or runs/mlflow/")
    experiment: str = runtime("pixclip", "MLflow experiment")

    @model_validator(mode="after")
    def _stage_fits(self) -> "TrainSettings":
        batch_size = self.training_stage().data.batch_size
        if batch_size % self.num_ranks:
            raise ValueError(
                f"data.batch_size={batch_size} must be a multiple of num_ranks={self.num_ranks}"
            )
        return self

    def training_stage(self) -> Stage:
        """The recipe's stage with the changes.

        Raises:
            ValueError: there is no such recipe, stage or field, or a value is out of range.
        """
        return find_stage(self.recipe, self.stage, self.changes)


@step(image="train", version=6, gpus=1, work=Work.KEPT)
def train(
    dataset: In,
    text_embeddings: In,
    parent: In,
    checkpoint: Out,
    curves: Out,
    settings: TrainSettings,
) -> Metrics:
    """Train one stage of a recipe.

    torchrun starts the ranks; their losses, rates, speed and memory go to MLflow while they
    train. A run that is killed or stopped goes on from its last saved state with the same losses
    as one that was not, if it has the same number of ranks.
    """
    # Imported here: the command line must start without MLflow.
    from components.core.torchrun import run_ranks
    from components.registry.runs import tracked_run

    work = checkpoint / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    notes = _notes(settings, _origins(dataset, text_embeddings, parent))
    _require_own_texts(text_embeddings, parent)
    _require_known_adaptor(parent, settings)
    with tracked_run(
        f"train {settings.recipe} {settings.stage}",
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        tags={
            "recipe": settings.recipe,
            "stage": settings.stage,
            "git_commit": os.environ.get("PIXCLIP_GIT_COMMIT", ""),
        },
        params=notes | {"num_ranks": settings.num_ranks},
        run_id=_read(work / RUN_ID),
    ) as run:
        if run.run_id != _read(work / RUN_ID):  # a new one gets all steps
            (work / LOGGED).unlink(missing_ok=True)
        (work / RUN_ID).write_text(run.run_id, encoding="utf-8")
        job = make_job(settings, dataset, text_embeddings, parent, checkpoint)
        write_job(work / JOB, job.changed(notes=notes))
        with following(Followed(work, work / LOGGED, run)):
            run_ranks("pixclip.training.run", work / JOB, num_ranks=settings.num_ranks)
        steps = read_steps(work)
        write_csv(curves, steps)
        run.artifact(curves)
        # The version in the registry has the same tag: its training is found by it.
        run.tag("checkpoint_sha256", weights_digest(checkpoint))
    return summary(steps)


def make_job(
    settings: TrainSettings, dataset: Path, text_embeddings: Path, parent: Path, checkpoint: Path
) -> Job:
    """The job of the ranks; their state goes below the checkpoint's draft."""
    return Job(
        stage=settings.training_stage(),
        parent=str(parent),
        dataset=str(dataset),
        text_embeddings=str(text_embeddings),
        work=str(checkpoint / WORK_FOLDER),
        checkpoint=str(checkpoint),
        **settings.model_dump(include=set(SAME_IN_JOB)),
    )


def _notes(settings: TrainSettings, origins: Mapping[str, str]) -> dict[str, Any]:
    """What the checkpoint says of its origin, the same for equal work."""
    return {
        "recipe": settings.recipe,
        "stage": to_dict(settings.training_stage()),
        "trained_on": dict(origins),
    }


def _origins(dataset: Path, text_embeddings: Path, parent: Path) -> dict[str, str]:
    """Digests of the data set, the embeddings and the parent.

    Raises:
        InputError: a file is missing.
    """
    files = {"dataset": dataset / MANIFEST_NAME, "parent": parent / WEIGHTS_NAME}
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f"train: the {name} at {path.parent} has no {path.name}")
    digests = {name: file_sha256(path) for name, path in files.items()}
    return {**digests, "text_embeddings": input_digest("text_embeddings", text_embeddings)}


def _require_own_texts(text_embeddings: Path, parent: Path) -> None:
    """Refuse vectors of another text tower than the parent's.

    Raises:
        InputError: they are, or the parent is no whole checkpoint.
    """
    from pixclip.checksums import CheckpointError
    from pixclip.text.embeddings import OtherTextTower, require_same_tower

    try:
        require_same_tower(text_embeddings, parent)
    except (CheckpointError, OtherTextTower) as error:
        raise InputError(f"train: {error}") from None


def _require_known_adaptor(parent: Path, settings: TrainSettings) -> None:
    """Refuse to freeze an adaptor that nobody has trained.

    Raises:
        InputError: the parent's adaptor was drawn at random, and the stage does not train it.
    """
    from pixclip.checkpoint import NOTES_NAME

    path = parent / NOTES_NAME
    try:
        notes = read_json_object(path) if path.is_file() else {}
    except JsonError as error:
        raise InputError(f"train: {error}; fetch the parent again") from None
    if "import_report" not in notes or "adaptor" in settings.training_stage().trainable:
        return  # another stage made it, or this one does
    report = notes["import_report"] or {"new": [{"target": "adaptor"}]}  # none: all is random
    try:
        is_random = any(tensor["target"].startswith("adaptor") for tensor in report["new"])
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"train: {path} has an import_report that is none") from None
    if is_random:
        raise InputError(
            f"train: the adaptor of {parent} is random, and the stage '{settings.stage}' of "
            f"{settings.recipe} does not train it, so texts would mean nothing; begin with weights "
            "that bring one (init_model.format llm2clip or pixclip), or train it: --set 'changes="
            "{trainable: [mask, vision, adaptor], optimizer.rest_lr: 1.0e-5}'"
        )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


POLL_S = 5.0
Line = dict[str, float]


def write_csv(path: Path, steps: list[Line]) -> None:
    """One row a step."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(steps[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(steps)


class Followed:
    """The `steps.jsonl` of a training: its lines go to a run, each once, also over restarts."""

    def __init__(self, work: Path, mark: Path, run: Run) -> None:
        self._work, self._mark, self._run = work, mark, run
        told = mark.read_bytes() if mark.exists() else b""
        self._last = int(told) if told.isdigit() else 0

    def log_new(self) -> None:
        """Send what has come.

        Raises:
            TrackingError: MLflow cannot be reached; nothing is lost, the next call sends it.
        """
        for line in read_steps(self._work, self._last):
            self._last = int(line["step"])
            self._run.log(self._last, _metrics(line))
        self._run.flush()
        write_whole(self._mark, str(self._last))


def _metrics(line: Line) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "step"}


@contextmanager
def following(followed: Followed) -> Iterator[None]:
    """Log new lines every few seconds; MLflow may be away for a while without stopping a training.

    Raises:
        TrackingError: MLflow cannot be reached at the end either.
    """
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(POLL_S):
            try:
                followed.log_new()
            except TrackingError as error:
                log.warning("the curves wait for MLflow: %s", error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        followed.log_new()


def summary(steps: list[Line]) -> dict[str, Any]:
    """How a training ended and how fast it was, from its curves."""
    last, steady = steps[-1], steps[len(steps) // 10 :]  # the first steps warm caches up
    seconds = sum(1 / step["samples_per_s"] for step in steady)
    waiting = sum(step["data_wait_share"] / step["samples_per_s"] for step in steady)
    return {
        "num_steps": int(last["step"]),
        **{name: value for name, value in last.items() if name.startswith("loss")},
        "samples_per_s": round(len(steady) / seconds, 2),
        "data_wait_share": round(waiting / seconds, 4),
        "memory_gb": max(step["memory_gb"] for step in steps),
    }
