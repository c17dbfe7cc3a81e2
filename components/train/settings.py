"""The settings of train."""

from typing import Any, Literal

from pydantic import Field, model_validator

from components.kernel.step import StepSettings, per_task, runtime
from pixclip.training.recipes import RECIPES, Stage, find_stage

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
    num_ranks: int = runtime(1, "processes that train together on this machine, one a GPU", ge=1)
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
