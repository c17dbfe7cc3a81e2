"""The settings of detect_parts."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.core.step import StepSettings, place, runtime, threshold

# A detector's text is split at full stops and question marks.
PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9' /-]{0,79}")
PARTS = {
    "aircraft": (
        "nose",
        "cockpit window",
        "engine",
        "wing",
        "winglet",
        "tail fin",
        "horizontal stabilizer",
        "landing gear",
        "propeller",
        "cabin door",
    ),
    "car": (
        "logo",
        "headlight",
        "tail light",
        "grille",
        "bumper",
        "wheel hub",
        "wing mirror",
        "windshield",
        "door handle",
        "license plate",
        "exhaust pipe",
        "spoiler",
    ),
}


class PartRules(BaseModel):
    """Which boxes may be a part of the object"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_inside_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of a part's box that lies in the object's box, at least; the rest is "
        "cut off",
    )
    max_object_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="largest box as a share of the object's box; a larger one shows the object",
    )
    min_side_px: float = Field(8, ge=1, description="smallest short side of a box, in pixels")


class DetectPartsSettings(StepSettings):
    """What is looked for, by which detector, and what may be a part."""

    parts: Mapping[str, tuple[str, ...]] = Field(
        PARTS,
        description="names of the parts to look for, by super-class; images of others, and those "
        "that have parts, are left as they are",
    )
    model: str = place(
        "IDEA-Research/grounding-dino-base",
        "id or folder of a Grounding DINO or OWLv2 model (safetensors), e.g. "
        "google/owlv2-base-patch16-ensemble",
        on_hub=True,
    )
    revision: str = Field("main", description="commit of the model; pin one for a real data set")
    query: str = Field(
        "{part}",
        description="what the detector is asked for a part; {object} is the super-class. OWLv2 "
        "was trained with sentences like: a photo of a {part}",
    )
    box_threshold: float = Field(
        0.3, gt=0, lt=1, description="lowest score of a box; OWLv2's are lower, about 0.1"
    )
    text_threshold: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="lowest mean score of the words of a part's name; Grounding DINO alone",
    )
    rules: PartRules = PartRules()
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number format of the model; lower ones move boxes by some pixels"
    )
    images_per_batch: int = Field(
        4,
        ge=1,
        description="images seen together; their padding to one size moves scores a little",
    )
    images_per_file: int = Field(
        256, ge=1, description="images in one Parquet file; a killed run loses at most one file"
    )
    min_found_share: float = threshold(
        0.5, "share of the searched images in which a part is found, at least", ge=0, le=1
    )
    device: str = runtime("auto", "where the model runs; auto takes the first GPU if there is one")

    @field_validator("parts")
    @classmethod
    def _require_names(cls, parts: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for super_class, names in parts.items():
            if len({name.lower() for name in names}) < len(names):
                raise ValueError(f"{super_class} has a part twice: {', '.join(names)}")
            for name in names:
                if not PART_NAME.fullmatch(name):
                    raise ValueError(
                        f"{super_class}: a part's name has letters, digits and spaces, got {name!r}"
                    )
        return parts

    @field_validator("query")
    @classmethod
    def _require_part(cls, query: str) -> str:
        if "{part}" not in query or set(query) & set(".?"):
            raise ValueError(f"it holds {{part}}, and neither full stop nor ?; got {query!r}")
        return query

    def queries(self, super_class: str) -> list[str]:
        """What the detector is asked for each part of a super-class."""
        asked = self.query.replace("{object}", super_class)
        return [asked.replace("{part}", name) for name in self.parts[super_class]]
