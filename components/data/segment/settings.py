"""The settings of segment."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.step import StepSettings, runtime, threshold

Source = Literal["record", "sam", "grabcut", "box"]


class SamSettings(BaseModel):
    """SAM and SAM 2 through transformers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "facebook/sam-vit-huge", description="id or folder of a SAM or SAM 2 model (safetensors)"
    )
    revision: str = Field("main", description="commit of the model; pin one for a real data set")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number format of the image encoder; the masks stay float32"
    )
    num_candidates: Literal[1, 3] = Field(
        3, description="masks the model proposes for a box; the one it rates best is kept"
    )
    device: str = runtime("auto", "where the model runs; auto takes the first GPU if there is one")
    images_per_batch: int = runtime(4, "images encoded together", ge=1)
    boxes_per_pass: int = runtime(32, "boxes of an image decoded together", ge=1)


class GrabCutSettings(BaseModel):
    """GrabCut of OpenCV."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(2, ge=1, le=20, description="rounds of GrabCut")
    max_side_px: int = Field(
        192, ge=32, le=2048, description="longer side to which a crop is scaled down; time"
    )
    context_share: float = Field(
        0.1, ge=0.01, le=2, description="background around the box, as a share of its sides"
    )
    num_threads: int = runtime(2, "images cut at the same time", ge=1)


class MaskRules(BaseModel):
    """When a mask is good enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box_margin_share: float = Field(
        0.05, ge=0, le=1, description="how far a mask may pass its box, as a share of its sides"
    )
    min_area_px: int = Field(64, ge=1, description="smallest mask in pixels")
    min_box_share: float = Field(
        0.05, ge=0, le=1, description="smallest mask as a share of its box"
    )
    max_image_share: float = Field(
        0.98, gt=0, le=1, description="largest mask as a share of the image"
    )


class SegmentSettings(StepSettings):
    """Where masks come from, and which are good enough."""

    source: Source = Field("record", description="where masks come from")
    fallback: Literal["none", "sam", "grabcut", "box"] = Field(
        "none",
        description="source for rows that never had a mask of their own, if source is record; sam "
        "for a real data set",
    )
    replace_unusable_masks: bool = Field(
        False,
        description="let the fallback also make a mask where the record's own is unusable; off, "
        "such a region is quarantined with what is wrong with its mask",
    )
    sam: SamSettings = SamSettings()
    grabcut: GrabCutSettings = GrabCutSettings()
    rules: MaskRules = MaskRules()
    images_per_part: int = Field(
        256, ge=1, description="images in one Parquet file; a killed run loses at most one file"
    )
    max_quarantined_share: float = threshold(
        0.5, "share of lost regions past which the step fails", ge=0, le=1
    )

    @property
    def generator(self) -> str:
        """The source that makes masks: `sam`, `grabcut`, `box`, or `none`."""
        return self.fallback if self.source == "record" else self.source
