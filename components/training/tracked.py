"""What the steps that train share: settings of a run, ranks whose curves MLflow follows, a CSV."""

import csv
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.core.digests import file_sha256
from components.core.errors import InputError
from components.core.files import write_whole
from components.core.step import Metrics, StepSettings, runtime
from components.core.tables import WORK_FOLDER
from components.registry.runs import Run
from components.registry.store import TrackingError
from pixclip.checksums import WEIGHTS_NAME, weights_digest
from pixclip.config import to_dict
from pixclip.data.layout import MANIFEST_NAME
from pixclip.training.config import AnyRecipe, AnyStage
from pixclip.training.job import AnyJob, read_steps, write_job

log = logging.getLogger(__name__)

JOB, RUN_ID, LOGGED = "job.json", "mlflow_run", "mlflow_step"


class TrainingSettings(StepSettings):
    """How a stage of training runs, whatever it trains."""

    recipe: str
    stage: str
    changes: dict[str, Any]
    num_ranks: int = runtime(1, "processes that train together, one a GPU", ge=1)
    num_workers: int = runtime(0, "processes of each rank that read data", ge=0)
    device: Literal["auto", "cpu"] = runtime("auto", "auto takes the GPUs if there are any")
    save_every_steps: int = runtime(
        500, "steps between states that a killed run resumes from", ge=1
    )
    save_every_s: float = runtime(600.0, "seconds between such states at most", gt=0)
    tracking_uri: str = runtime("", "MLflow server; empty: MLFLOW_TRACKING_URI, or runs/mlflow/")
    experiment: str = runtime("pixclip", "MLflow experiment")

    def of_job(self) -> dict[str, Any]:
        """The settings that a job has under the same name."""
        return {name: value for name, value in self if name in AnyJob.model_fields}


def stages_of(recipes: Mapping[str, AnyRecipe[Any]]) -> str:
    """The stages of recipes, for a person."""
    return "; ".join(
        f"{', '.join(stage.name for stage in recipe.stages)} of {name}"
        for name, recipe in recipes.items()
    )


def require_divided(batch_size: int, num_ranks: int) -> None:
    """Refuse a batch that ranks cannot share.

    Raises:
        ValueError: it is no multiple of their number.
    """
    if batch_size % num_ranks:
        raise ValueError(
            f"data.batch_size={batch_size} must be a multiple of num_ranks={num_ranks}"
        )


@dataclass(frozen=True)
class TrainingRun:
    """A stage to train: what the ranks run, and where they write."""

    module: str
    job: AnyJob
    stage: AnyStage
    checkpoint: Path
    curves: Path
    origins: Mapping[str, str]  # digests of what it is trained on


def train_tracked(run: TrainingRun, settings: TrainingSettings) -> Metrics:
    """Run the ranks, follow their curves into MLflow while they train, write them as CSV.

    Raises:
        InputError: a rank refused its data, model or settings.
        RanksFailed: a rank failed otherwise.
        TrackingError: MLflow cannot be reached.
    """
    # Imported here: the command line must start without MLflow.
    from components.core.torchrun import run_ranks
    from components.registry.runs import tracked_run

    work = run.checkpoint / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    # What the checkpoint says of its origin is the same for equal work.
    notes = {
        "recipe": settings.recipe,
        "stage": to_dict(run.stage),
        "trained_on": dict(run.origins),
    }
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
    ) as tracked:
        if tracked.run_id != _read(work / RUN_ID):  # a new one gets all steps
            (work / LOGGED).unlink(missing_ok=True)
        (work / RUN_ID).write_text(tracked.run_id, encoding="utf-8")
        write_job(work / JOB, run.job.changed(notes=notes))
        with following(Followed(work, work / LOGGED, tracked)):
            run_ranks(run.module, work / JOB, num_ranks=settings.num_ranks)
        steps = read_steps(work)
        write_csv(run.curves, steps)
        tracked.artifact(run.curves)
        # The version in the registry has the same tag: its training is found by it.
        tracked.tag("checkpoint_sha256", weights_digest(run.checkpoint))
    return summary(steps)


def origins_of(step: str, dataset: Path, parent: Path) -> dict[str, str]:
    """Digests of the data set and of the parent.

    Raises:
        InputError: a file is missing.
    """
    files = {"dataset": dataset / MANIFEST_NAME, "parent": parent / WEIGHTS_NAME}
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f"{step}: the {name} at {path.parent} has no {path.name}")
    return {name: file_sha256(path) for name, path in files.items()}


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
