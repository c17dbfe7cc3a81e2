"""What people may tune in `deduplicate`."""

from typing import Literal

from pydantic import Field

from components.kernel.step import StepSettings


class DeduplicateSettings(StepSettings):
    """Settings of `deduplicate`; distances in bits, sides in pixels."""

    max_phash_distance: int = Field(
        4,
        description="largest distance of two near-duplicates' 64-bit perceptual hashes, in bits; "
        "-1 looks for equal bytes only",
        ge=-1,
        le=8,
    )
    min_box_side_px: float = Field(
        16, description="smallest short side of a box in the real image, in pixels", ge=1
    )
    turned_boxes: Literal["by_size", "stored", "upright"] = Field(
        "by_size",
        description="pixels that boxes of a photograph with an EXIF orientation are measured in "
        "where its declared size fits both ways; by_size asks the source's other photographs",
    )
    resized_images: Literal["web", "all", "none"] = Field(
        "web",
        description="whose images may be of another size than the source declares if their shape "
        "is the same: those of http(s) addresses, all, or none",
    )
