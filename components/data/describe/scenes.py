"""What goes into a describer and comes out: scenes, descriptions, rejections.

A describer gets a scene (one image with its regions, read only when it is needed) and gives a
`Description` (or a `Contrast`) or a `Rejection` for each region, in their order. Two exist:
`embedded` and the one of `pipeline.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from PIL import Image

from components.core.shards import read_image_bytes
from components.core.tables import Row, read_rows
from data_contracts.reasons import DescribeReason
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.images import ImageError, open_image
from pixclip.masks import Box, Rle, rle_num_pixels


@dataclass(frozen=True)
class Region:
    """One row of the `regions` artifact, decoded; `phrase` and `image_caption` are untrusted."""

    region_id: str
    image_sha256: str
    image_width_px: int
    image_height_px: int
    box_xyxy: Box
    phrase: str
    image_caption: str
    rle: Rle
    subset: str = ""  # of a data set of parts: what kind of thing the image shows, e.g. "bird"
    is_whole_image: bool = False
    short_caption: str = ""  # of a region that is described


@dataclass(frozen=True)
class Scene:
    """One upright RGB image with its regions."""

    image_sha256: str
    image: Image.Image
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Provenance:
    """Who said a text: for a model also with which prompt and on which request."""

    describer: str  # "embedded-rules" or "endpoints"
    model: str
    prompt: str = ""
    prompt_version: str = ""
    request_hash: str = ""


@dataclass(frozen=True)
class Usage:
    """What describing a region took; retries of failed requests are not counted."""

    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0


@dataclass(frozen=True)
class Rejection:
    """A region that gets no description: the stage, a short code, and why in words."""

    region_id: str
    stage: str
    reason: str  # short code, counted in the metrics
    detail: str = ""  # the verifier's own reason, or values and advice for a person
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class PendingScene:
    """The rows of one image; `regions` are those of them that can be described."""

    rows: tuple[Row, ...]
    regions: tuple[Region, ...]
    damaged: tuple[Rejection, ...]  # rows whose mask does not fit their image
    images: Path

    @property
    def num_image_bytes(self) -> int:
        """Bytes that the decoded image takes."""
        row = self.rows[0]
        return int(row["image_width_px"]) * int(row["image_height_px"]) * 3

    def load_image(self) -> Image.Image:
        """Decode the image.

        Raises:
            ImageError: it cannot be decoded, or is not of the size its regions were made for.
        """
        row = self.rows[0]
        image = open_image(
            read_image_bytes(self.images, row["image_shard"], row["image_sha256"]),
            max_pixels=max(self.num_image_bytes // 3, 1),
        )
        expected = (row["image_width_px"], row["image_height_px"])
        if image.size != expected:
            raise ImageError(
                DescribeReason.IMAGE_MISMATCH, f"{image.size} pixels, the regions say {expected}"
            )
        return image

    def load(self) -> Scene:
        """The scene with its image decoded (see `load_image` for the errors)."""
        return Scene(self.rows[0]["image_sha256"], self.load_image(), self.regions)


def read_scenes(regions: Path, images: Path) -> Iterator[PendingScene]:
    """Stream scenes in the order of the rows; neighbouring rows of one image make a scene."""
    for _, rows in groupby(read_rows(regions), key=lambda row: row["image_sha256"]):
        yield _pending_scene(tuple(rows), images)


def unreadable(scene: PendingScene, error: ImageError) -> list[Rejection]:
    """A rejection of every region of an image that cannot be used."""
    return [
        Rejection(region.region_id, "image", error.reason, error.detail) for region in scene.regions
    ]


def _pending_scene(rows: tuple[Row, ...], images: Path) -> PendingScene:
    regions, damaged = [], []
    for row in rows:
        region = _region(row)
        problem = _mask_problem(region)
        if problem:
            damaged.append(
                Rejection(region.region_id, "mask", DescribeReason.INVALID_MASK, problem)
            )
        else:
            regions.append(region)
    return PendingScene(rows, tuple(regions), tuple(damaged), images)


def _region(row: Row) -> Region:
    height_px, width_px = row["mask_size"]
    x1, y1, x2, y2 = row["box_xyxy"]
    return Region(
        region_id=row["region_id"],
        image_sha256=row["image_sha256"],
        image_width_px=row["image_width_px"],
        image_height_px=row["image_height_px"],
        box_xyxy=(x1, y1, x2, y2),
        phrase=row["phrase"],
        image_caption=row["image_caption"],
        rle=Rle(height_px, width_px, row["mask_counts"]),
        subset=row["subset"],
        is_whole_image=row["box_source"] == WHOLE_IMAGE,
        short_caption=row.get("short_caption", ""),
    )


def _mask_problem(region: Region) -> str:
    rle = region.rle
    if (rle.width_px, rle.height_px) != (region.image_width_px, region.image_height_px):
        return f"mask of {rle.width_px} x {rle.height_px} pixels on an image of another size"
    try:
        num_pixels = rle_num_pixels(rle.counts)
    except ValueError as error:
        return str(error)
    expected = rle.width_px * rle.height_px
    return "" if num_pixels == expected else f"mask of {num_pixels} pixels instead of {expected}"


@dataclass(frozen=True)
class Description:
    """The texts of an accepted region; `provenance` goes by stage ("object", "verify", …)."""

    region_id: str
    object_caption: str
    verdict: str  # "accepted"
    verdict_reason: str
    context_caption: str
    long_caption: str
    short_caption: str
    provenance: Mapping[str, Provenance]
    usage: Usage = field(default_factory=Usage)


# In what a wrong caption may differ from the right one. part: another part of the same object is
# named; side: left or right of the animal or machine; place: where in the picture.
Attribute = Literal[
    "colour", "material", "shape", "pattern", "size", "number", "part", "side", "place"
]


MAX_CAPTIONS = 16  # wrong captions in an answer


@dataclass(frozen=True)
class LeftOut:
    """A wrong caption that is not kept: a short code, counted in the metrics, and why in words."""

    text: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Contrast:
    """The wrong captions of a described region; `without` says why there are none, if so."""

    region_id: str
    negatives: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    without: str = ""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


Outcome = Description | Contrast | Rejection


@dataclass(frozen=True)
class WordLimits:
    """Numbers of words that a long and a short caption may have."""

    min_long: int
    max_long: int
    min_short: int
    max_short: int
