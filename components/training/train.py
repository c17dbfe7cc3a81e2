"""The step that trains one stage of a recipe of PixCLIP.

Its curves are followed into MLflow while it runs, and written as CSV at its end.

pixclip train --dataset … --text-embeddings … --parent … --checkpoint … --curves … \
    --set recipe=tiny --set stage=align --set num_ranks=2
"""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from components.core.errors import InputError
from components.core.receipts import input_digest
from components.core.step import In, Metrics, Out, Work, per_task, runtime, step
from components.core.tables import WORK_FOLDER
from components.training.tracked import (
    TrainingRun,
    TrainingSettings,
    origins_of,
    require_divided,
    stages_of,
    train_tracked,
)
from pixclip.json_files import JsonError, read_json_object
from pixclip.training.config import Stage
from pixclip.training.job import Job
from pixclip.training.recipes import RECIPES, find_stage


class TrainSettings(TrainingSettings):
    """Which stage of which recipe, what is changed of it, and how it runs."""

    recipe: str = Field("tiny", description=f"one of {', '.join(RECIPES)}")
    stage: str = per_task(
        "align", f"stage of the recipe, of which pipelines take all: {stages_of(RECIPES)}"
    )
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="changes of the stage by dotted name, e.g. {optimizer.rest_lr: 1.0e-6}",
    )
    micro_batch_size: int = runtime(
        0, "regions of a rank in the tower at a time; 0: its whole batch (GradCache)", ge=0
    )

    @model_validator(mode="after")
    def _stage_fits(self) -> "TrainSettings":
        require_divided(self.training_stage().data.batch_size, self.num_ranks)
        return self

    def training_stage(self) -> Stage:
        """The recipe's stage with the changes.

        Raises:
            ValueError: there is no such recipe, stage or field, or a value is out of range.
        """
        return find_stage(RECIPES, self.recipe, self.stage, self.changes)


@step(image="train", version=8, gpus=1, work=Work.KEPT)
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
    origins = origins_of("train", dataset, parent)
    origins["text_embeddings"] = input_digest("text_embeddings", text_embeddings)
    _require_own_texts(text_embeddings, parent)
    _require_known_adaptor(parent, settings)
    job = make_job(settings, dataset, text_embeddings, parent, checkpoint)
    run = TrainingRun("pixclip.training.run", job, job.stage, checkpoint, curves, origins)
    return train_tracked(run, settings)


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
        micro_batch_size=settings.micro_batch_size,
        **settings.of_job(),
    )


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
