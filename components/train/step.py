"""The step that trains one stage of a recipe.

pixclip train --longgrit … --text-embeddings … --parent … --checkpoint … --curves … \
    --set recipe=tiny --set stage=align --set num_ranks=2
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.kernel.digests import file_sha256
from components.kernel.errors import InputError
from components.kernel.receipts import input_digest
from components.kernel.step import In, Metrics, Out, Work, step
from components.kernel.tables import WORK_FOLDER
from components.train.settings import TrainSettings
from pixclip.checksums import WEIGHTS_NAME, weights_digest
from pixclip.config import to_dict
from pixclip.json_files import JsonError, read_json_object

if TYPE_CHECKING:
    from pixclip.training.job import Job

JOB, RUN_ID, LOGGED = "job.json", "mlflow_run", "mlflow_step"
SAME_IN_JOB = ("num_workers", "micro_batch_size", "save_every_steps", "save_every_s", "device")


@step(image="train", gpus=1, work=Work.KEPT)
def train(
    longgrit: In,
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
    from components.kernel.torchrun import run_ranks
    from components.tracking.runs import tracked_run
    from components.train.curves import Followed, following, read_steps, summary, write_csv
    from pixclip.training.job import STEPS, write_job

    work = checkpoint / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    notes = _notes(settings, _origins(longgrit, text_embeddings, parent))
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
        job = make_job(settings, longgrit, text_embeddings, parent, checkpoint)
        write_job(work / JOB, job.changed(notes=notes))
        with following(Followed(work / STEPS, work / LOGGED, run)):
            run_ranks("pixclip.training.run", work / JOB, num_ranks=settings.num_ranks)
        steps = read_steps(work / STEPS)
        write_csv(curves, steps)
        run.artifact(curves)
        # The version in the registry has the same tag: its training is found by it.
        run.tag("checkpoint_sha256", weights_digest(checkpoint))
    return summary(steps)


def make_job(
    settings: TrainSettings, longgrit: Path, text_embeddings: Path, parent: Path, checkpoint: Path
) -> "Job":
    """The job of the ranks; their state goes below the checkpoint's draft."""
    from pixclip.training.job import Job

    return Job(
        stage=settings.training_stage(),
        parent=str(parent),
        longgrit=str(longgrit),
        text_embeddings=str(text_embeddings),
        work=str(checkpoint / WORK_FOLDER),
        checkpoint=str(checkpoint),
        **settings.model_dump(include=set(SAME_IN_JOB)),
    )


def _notes(settings: TrainSettings, origins: Mapping[str, str]) -> dict[str, Any]:
    """What the checkpoint tells of where it comes from, the same for equal work."""
    return {
        "recipe": settings.recipe,
        "stage": to_dict(settings.training_stage()),
        "trained_on": dict(origins),
    }


def _origins(longgrit: Path, text_embeddings: Path, parent: Path) -> dict[str, str]:
    """Digests of the data set, the embeddings and the parent.

    Raises:
        InputError: a file is missing.
    """
    files = {"longgrit": longgrit / "manifest.parquet", "parent": parent / WEIGHTS_NAME}
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
    from pixclip.text.tower_digest import OtherTextTower, require_same_tower

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
