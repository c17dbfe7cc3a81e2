"""Settings of `import_parts`."""

from typing import Literal

from pydantic import Field

from components.core.step import threshold
from components.data.formats.sources import PartSources
from components.data.import_parts.part_boxes import BoxRule


class ImportPartsSettings(PartSources):
    """Which sources become FG-Part, and how their parts become boxes."""

    name_classes: bool = Field(
        False,
        description="call an image by its species or model, as the paper's examples do, instead of "
        "bird, car or aircraft; captions then tell what a test asks for",
    )
    name_attributes: bool = Field(
        False,
        description="append to a caption what CUB's annotators are sure to see, e.g. bill shape "
        "hooked; they were many and are not always right",
    )
    aircraft_level: Literal["variant", "family", "manufacturer"] = Field(
        "variant", description="which of an aircraft's names counts as its class"
    )
    boxes: BoxRule = BoxRule()
    max_lost_share: float = threshold(
        0.5,
        "share of parts and images that may be lost; parts that the annotators did not see are not",
        ge=0,
        le=1,
    )
