"""The settings of evaluate."""

from typing import Literal

from pydantic import Field

from components.core.step import StepSettings, runtime


class EvaluateSettings(StepSettings):
    """What is measured and what is shown."""

    split: Literal["benchmark", "val"] = Field(
        "benchmark", description="images that are asked about; numbers of two splits never compare"
    )
    num_resamples: int = Field(
        2000, ge=100, le=100_000, description="bootstrap resamples behind an interval"
    )
    num_examples: int = Field(
        12, ge=0, le=48, description="retrieval examples drawn by lot on evaluation.html"
    )
    num_mistakes: int = Field(6, ge=0, le=48, description="worst mistakes on evaluation.html")
    num_maps: int = Field(
        6, ge=0, le=48, description="examples shown with attention and similarity maps"
    )
    seed: int = Field(0, description="decides resamples and the examples that are drawn")
    batch_size: int = runtime(64, "regions that go through the towers together", ge=1)
    device: str = runtime("auto", "where the model runs; auto takes the first GPU if there is one")
