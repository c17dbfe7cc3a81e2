"""The settings of pack."""

from typing import Literal

from pydantic import Field

from components.kernel.step import StepSettings
from components.pack.splits import SplitRule


class PackSettings(StepSettings):
    """How the data set is divided, cut into shards and shown."""

    seed: int = Field(0, ge=0, description="decides splits and order of the images")
    images_per_shard: int = Field(1000, ge=1, description="images in one tar")
    val_share: float = Field(
        0.05, ge=0, lt=1, description="share of the images not in the benchmark that becomes `val`"
    )
    benchmark_regions: int = Field(
        2000, ge=0, description="regions drawn for the benchmark if the source marks none"
    )
    benchmark_max_share: float = Field(
        0.1, ge=0, le=1, description="largest share of the undecided regions that may be drawn"
    )
    near_duplicate_distance: int = Field(
        4, ge=0, le=32, description="bits (of 64) in which perceptual hashes of look-alikes differ"
    )
    source: Literal["sample", "grit", "own"] = Field(
        "sample", description="where the images come from; decides what the card says of licences"
    )
    licence_note: str = Field("", description="a sentence for the card's section on licences")
    report_images: int = Field(18, ge=0, le=60, description="images shown in full on report.html")
    report_rejected: int = Field(24, ge=0, le=60, description="rejected regions on report.html")

    def split_rule(self) -> SplitRule:
        """The settings that divide the images."""
        return SplitRule(
            seed=self.seed,
            val_share=self.val_share,
            benchmark_regions=self.benchmark_regions,
            benchmark_max_share=self.benchmark_max_share,
            near_duplicate_distance=self.near_duplicate_distance,
        )
