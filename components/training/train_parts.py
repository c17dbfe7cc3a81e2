"""The step that trains one stage of a recipe of PA-CLIP.

pixclip train-parts --dataset fgpart --parent … --checkpoint … --curves … \
    --set recipe=paclip_tiny --set stage=parts --set num_ranks=2
"""

from typing import Any

from pydantic import Field, model_validator

from components.core.step import In, Metrics, Out, Work, per_task, step
from components.core.tables import WORK_FOLDER
from components.training.tracked import (
    TrainingRun,
    TrainingSettings,
    origins_of,
    require_divided,
    stages_of,
    train_tracked,
)
from pixclip.training.config import PartStage
from pixclip.training.job import PartJob
from pixclip.training.recipes import PART_RECIPES, find_stage


class TrainPartsSettings(TrainingSettings):
    """Which stage of which recipe, what is changed of it, and how it runs."""

    recipe: str = Field("paclip_tiny", description=f"one of {', '.join(PART_RECIPES)}")
    stage: str = per_task("parts", f"stage of the recipe: {stages_of(PART_RECIPES)}")
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="changes of the stage by dotted name, e.g. {losses.alpha: 0.5}",
    )

    @model_validator(mode="after")
    def _stage_fits(self) -> "TrainPartsSettings":
        require_divided(self.training_stage().data.batch_size, self.num_ranks)
        return self

    def training_stage(self) -> PartStage:
        """The recipe's stage with the changes.

        Raises:
            ValueError: there is no such recipe, stage or field, or a value is out of range.
        """
        return find_stage(PART_RECIPES, self.recipe, self.stage, self.changes)


@step(image="train", gpus=1, work=Work.KEPT)
def train_parts(
    dataset: In, parent: In, checkpoint: Out, curves: Out, settings: TrainPartsSettings
) -> Metrics:
    """Train one stage of a recipe of PA-CLIP: both towers, on images, their captions and parts.

    In: a data set with captions of whole images and parts, and the checkpoint to start from, of
    `init-model` or the stage before. Out: the trained checkpoint, and a line of curves a step.

    As `train`: ranks through torchrun, curves in MLflow, and a run that is killed goes on from its
    last saved state.
    """
    job = PartJob(
        stage=settings.training_stage(),
        parent=str(parent),
        dataset=str(dataset),
        work=str(checkpoint / WORK_FOLDER),
        checkpoint=str(checkpoint),
        **settings.of_job(),
    )
    origins = origins_of("train_parts", dataset, parent)
    module = "pixclip.training.run_parts"
    run = TrainingRun(module, job, job.stage, checkpoint, curves, origins)
    return train_tracked(run, settings)
