"""Settings of `select`: what a record and a region must be to be worth downloading."""

from pydantic import Field

from components.core.step import StepSettings


class SelectSettings(StepSettings):
    """Limits of the filters, and the size of a group."""

    min_score: float = Field(
        0.65,
        description="lowest detector score of a region, in [0, 1]; GRIT keeps 0.65",
        ge=0,
        le=1,
    )
    min_clip_similarity: float = Field(
        0.15,
        description="lowest CLIP ViT-L/14 cosine similarity of image and caption; unknown passes",
        ge=-1,
        le=1,
    )
    min_image_side_px: int = Field(
        200, description="shortest declared side of an image in pixels", ge=1
    )
    min_box_side_px: float = Field(
        16, description="shortest side of a box in pixels of the declared image size", ge=0
    )
    min_box_share: float = Field(
        0.001, description="smallest area of a box as a share of the image", ge=0, le=1
    )
    max_box_share: float = Field(
        0.95, description="largest area of a box as a share of the image", gt=0, le=1
    )
    min_phrase_chars: int = Field(1, description="shortest phrase in characters", ge=1)
    max_phrase_chars: int = Field(120, description="longest phrase in characters", ge=1)
    records_per_group: int = Field(
        20_000, description="source records in one group, the unit of parallel work", ge=1
    )
