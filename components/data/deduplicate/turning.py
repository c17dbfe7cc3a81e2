"""Whether a record speaks of the picture that arrived, and in which pixels it measures.

Some tools measure boxes in a photograph as it is stored, others as people see it, turned by its
EXIF orientation. The declared size tells, unless the picture is a square, or is turned by half or
mirrored only: then the other photographs of the source tell, and if they do not, the settings.

The size of an image of one's own (`file://`, `s3://`) must be the declared one. A host of the web
may serve another size of the same picture, so there the aspect ratio must be: within what rounding
both sides to whole pixels can make of it. `deduplicate.resized_images` says it for other sources.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from components.core.tables import Row
from data_contracts.reasons import DeduplicateReason
from pixclip.masks import Box, Rle, decode_mask, encode_mask, turn_box, turn_mask

STORED, UPRIGHT, EITHER, NEITHER = "stored", "upright", "either", "neither"
AGREEMENT = 0.9  # of the photographs that tell, before the others are read like them
Convention = Literal["", "stored", "upright"]
Resized = Literal["web", "all", "none"]


@dataclass(frozen=True)
class Reading:
    """How a source is read where sizes do not tell everything."""

    convention: Convention = ""  # of photographs whose size fits the stored and the upright pixels
    resized: Resized = "web"  # whose images may be of another size and the same shape


class PlacementError(ValueError):
    """A region that cannot be brought to its image; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def pixels_of(
    declared: Sequence[int] | None, image: Row, url: str, resized: Resized = "web"
) -> str:
    """Which pixels of an image a declared [height, width] is of: a word of this module."""
    upright, stored = (image["width_px"], image["height_px"]), stored_size(image)
    if declared is None:  # the source says nothing that could be compared
        return EITHER if image["orientation"] > 1 else UPRIGHT
    size = (declared[1], declared[0])
    is_upright, is_stored = (size == upright), (size == stored)
    may_be_resized = resized == "all" or (resized == "web" and url.startswith("http"))
    if not (is_upright or is_stored) and may_be_resized:
        is_upright, is_stored = (has_shape(size, other) for other in (upright, stored))
    if is_upright and is_stored:
        return EITHER if image["orientation"] > 1 else UPRIGHT
    return UPRIGHT if is_upright else STORED if is_stored else NEITHER


def stored_size(image: Row) -> tuple[int, int]:
    """Width and height of an image as its file holds it."""
    return image["stored_width"], image["stored_height"]


def has_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size can be the other scaled, each side rounded to a whole pixel."""
    (width, height), (other_width, other_height) = size, other
    if min(*size, *other) < 1:
        return False
    # The smaller of the two was rounded: by up to a pixel, whichever way its maker rounds.
    larger = max(size, other)
    return abs(width * other_height - height * other_width) <= larger[0] + larger[1]


def convention_of(votes: Mapping[str, int]) -> Convention:
    """How the photographs of a source that tell it are measured; "" if they disagree or none."""
    stored, upright = votes.get(STORED, 0), votes.get(UPRIGHT, 0)
    if stored > 0 and stored >= AGREEMENT * (stored + upright):
        return "stored"
    if upright > 0 and upright >= AGREEMENT * (stored + upright):
        return "upright"
    return ""


def brought_upright(row: Row, image: Row, reading: Reading, counts: Counter[str]) -> Row:
    """The row with its box and its mask in the upright image; counts what was turned.

    Raises:
        PlacementError: the row is of another picture, nobody knows which way it lies, or its mask
            cannot be turned.
    """
    pixels = pixels_of(row["declared_size"], image, row["url"], reading.resized)
    if pixels == NEITHER:
        raise PlacementError(DeduplicateReason.IMAGE_SIZE_MISMATCH, _both_sizes(row, image))
    if pixels == EITHER:
        if not reading.convention:
            raise PlacementError(
                DeduplicateReason.ORIENTATION_UNDECIDED,
                f"EXIF orientation {image['orientation']}, and the declared size "
                f"{_size_text(row)} fits the stored and the upright picture; say by "
                "deduplicate.turned_boxes which one the source's boxes are measured in",
            )
        pixels = reading.convention
        counts[f"read_as_{pixels}"] += 1
    if pixels == UPRIGHT or image["orientation"] == 1:
        return row
    counts["turned"] += 1
    return _turned(row, image["orientation"])


def _turned(row: Row, orientation: int) -> Row:
    x1, y1, x2, y2 = row["box_norm"]
    box: Box = turn_box((x1, y1, x2, y2), orientation)
    turned = {**row, "box_norm": list(box)}
    if row["mask_counts"] is None:
        return turned
    try:
        height_px, width_px = row["mask_size"]
        mask = decode_mask(Rle(height_px, width_px, row["mask_counts"]))
    except (ValueError, TypeError) as error:
        raise PlacementError(DeduplicateReason.MASK_DAMAGED, str(error)) from None
    upright = encode_mask(turn_mask(mask, orientation))
    size = [upright.height_px, upright.width_px]
    return turned | {"mask_counts": upright.counts, "mask_size": size}


def _both_sizes(row: Row, image: Row) -> str:
    width, height = stored_size(image)
    stored = f" (stored as {width} x {height})" if image["orientation"] > 1 else ""
    may_be_resized = pixels_of(row["declared_size"], image, row["url"], "all") != NEITHER
    advice = "; deduplicate.resized_images=all lets it in" if may_be_resized else ""
    return (
        f"declared {_size_text(row)}, but the image is {image['width_px']} x "
        f"{image['height_px']}{stored}: another picture, or resized after it was annotated{advice}"
    )


def _size_text(row: Row) -> str:
    declared = row["declared_size"]
    return f"{declared[1]} x {declared[0]}" if declared else "(none)"
