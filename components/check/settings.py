"""The settings of check."""

from typing import Literal

from pydantic import Field

from components.kernel.step import StepSettings

CheckedArtifact = Literal[
    "grit", "records", "images", "candidates", "regions", "captions", "quarantine", "longgrit"
]


class CheckSettings(StepSettings):
    """What is checked, and how much of it is shown."""

    artifact: CheckedArtifact = Field(
        "longgrit", description="which contract the checked folder must meet"
    )
    max_group_pages: int = Field(
        20, ge=0, description="pages for single groups, beside the page of the whole"
    )
