"""Choose what the report page shows: samples and rejected regions drawn by lot, by the seed.

Their pictures are small JPEGs as data URLs, masks are SVG outlines over them.
"""

import base64
import heapq
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.shards import read_image_bytes, read_member
from components.core.tables import Row, groups_of, read_rows
from components.data.pack.plan import shuffle_rank
from components.data.pack.statistics import quarantine_rows
from components.steps import STEPS
from data_contracts.reasons import PartReason
from pixclip.data.layout import BENCHMARK, SPLITS, TRAIN, VAL, WHOLE_IMAGE
from pixclip.images import open_image
from pixclip.json_files import JsonError, parse_json
from pixclip.masks import Mask, Rle, decode_mask, mask_box

SAMPLE_SIDE_PX, REJECTED_SIDE_PX = 720, 320
MAX_PER_REASON = 3
MAX_PLACE = 1e9  # of a corner, in pixels; NaN is not below it either


@dataclass(frozen=True)
class Picture:
    """A shrunken image."""

    data_url: str
    width_px: int
    height_px: int
    scale: float  # its pixels for one pixel of the original


Box = tuple[float, float, float, float]  # x, y, width, height in the picture


@dataclass(frozen=True)
class Outline:
    """A mask's outline as an SVG path, and a place for its number."""

    path: str
    x: float
    y: float
    box: Box | None = None  # of a part, which is cut out by its box
    point: tuple[float, float] | None = None  # annotated; the box was made of it


@dataclass(frozen=True)
class Sample:
    """A sample with its picture, and an outline for each of its regions."""

    split: str
    content: Mapping[str, Any]
    picture: Picture
    outlines: list[Outline]
    unseen: Sequence[str] = ()  # names of parts that the annotators did not see

    @property
    def number_scale(self) -> float:
        """How large numbers are drawn: smaller where many parts are close together."""
        return number_scale(len(self.outlines), self.picture)


@dataclass(frozen=True)
class Rejected:
    """A dropped region; the picture is missing where the image never arrived."""

    step: str
    reason: str
    detail: str
    phrase: str
    url: str
    said: str  # the caption that was refused, if it came so far
    picture: Picture | None
    box: Box | None


def samples_by_lot(
    longgrit: Path, manifest: Path, quarantines: Path, number: int, seed: int
) -> Iterator[Sample]:
    """Samples of all splits, half of them for training, each split in the order of the lot."""
    unseen = _unseen_parts(quarantines)
    chosen = _draw_images(manifest, number, seed)
    quota = {TRAIN: number - 2 * (number // 4), VAL: number // 4, BENCHMARK: number // 4}
    for split in SPLITS:
        for image in chosen[split][: quota[split]]:
            shard, key = longgrit / image["shard"], image["key"]
            content = json.loads(read_member(shard, f"{key}.json"))
            picture = shrink(read_member(shard, f"{key}.jpg"), SAMPLE_SIDE_PX)
            outlines = outlines_of(content["regions"], picture)
            yield Sample(split, content, picture, outlines, unseen.get(content["url"], ()))


def _unseen_parts(quarantines: Path) -> dict[str, list[str]]:
    """By an image's URL, the names of the parts that its annotators did not see."""
    unseen: dict[str, list[str]] = {}
    for row in quarantine_rows(quarantines, ["reason", "url", "phrase"]):
        if row["reason"] == PartReason.PART_NOT_VISIBLE:
            unseen.setdefault(row["url"], []).append(row["phrase"])
    return unseen


def _draw_images(manifest: Path, number: int, seed: int) -> dict[str, list[Row]]:
    chosen = {}
    for split in SPLITS:
        rows = read_rows(manifest, ["split", "image_id", "shard", "key"])
        images = (
            next(group)
            for _, group in itertools.groupby(
                (row for row in rows if row["split"] == split), lambda row: row["image_id"]
            )
        )
        chosen[split] = heapq.nsmallest(
            number, images, key=lambda row: shuffle_rank(seed, "report", row["image_id"])
        )
    return chosen


def rejected_by_lot(quarantines: Path, images: Path, number: int, seed: int) -> Iterator[Rejected]:
    """Dropped regions, as many reasons as there is room for, in the order of the steps."""
    rows = _draw_rejected(quarantine_rows(quarantines), number, seed)
    places = _find_images(images, rows)
    for row in rows:
        yield _show_rejected(row, places)


def _draw_rejected(rows: Iterable[Row], number: int, seed: int) -> list[Row]:
    """Up to `MAX_PER_REASON` regions of every reason, of different records."""
    by_reason: dict[tuple[str, str], dict[str, tuple[str, Row]]] = {}
    for row in rows:
        lot = by_reason.setdefault((row["step"], row["reason"]), {})
        drawn = shuffle_rank(seed, "report", row["region_id"]), row
        lot[row["record_id"]] = min(drawn, lot.get(row["record_id"], drawn), key=_rank)
        if len(lot) > MAX_PER_REASON:
            del lot[max(lot, key=lambda record: _rank(lot[record]))]
    turns = itertools.zip_longest(*(sorted(by_reason[r].values(), key=_rank) for r in by_reason))
    fair = [row for turn in turns for _, row in filter(None, turn)][:number]
    order = {step: index for index, step in enumerate(STEPS)}
    return sorted(
        fair, key=lambda row: (order.get(row["step"], -1), row["reason"], row["region_id"])
    )


def _rank(drawn: tuple[str, Row]) -> tuple[str, str]:
    return drawn[0], drawn[1]["region_id"]


@dataclass(frozen=True)
class Place:
    """Where an image lies."""

    folder: Path
    shard: str
    sha256: str


def _find_images(images: Path, rows: Iterable[Row]) -> dict[str, Place]:
    """The images of dropped regions by URL, if the region's siblings brought them."""
    wanted = {row["url"] for row in rows}
    return {
        row["url"]: Place(images / group, row["shard"], row["sha256"])
        for group in groups_of(images)
        for row in read_rows(images / group, ["url", "status", "sha256", "shard"])
        if row["status"] == "ok" and row["url"] in wanted
    }


def _show_rejected(row: Row, places: Mapping[str, Place]) -> Rejected:
    content = _content(row["row"])
    picture, place = None, places.get(row["url"])
    if place:
        jpeg = read_image_bytes(place.folder, place.shard, place.sha256)
        picture = shrink(jpeg, REJECTED_SIDE_PX)
    return Rejected(
        step=row["step"],
        reason=row["reason"],
        detail=row["detail"],
        phrase=row["phrase"],
        url=row["url"],
        said=str(content.get("long_caption") or content.get("object_caption") or ""),
        picture=picture,
        box=_box_in_picture(content, picture) if picture else None,
    )


def _content(text: str) -> Row:
    """A dropped row as it was; empty where nobody can read it any more: it is shown without."""
    try:
        content = parse_json(text)
    except JsonError:
        return {}
    return content if isinstance(content, dict) else {}


def _box_in_picture(content: Row, picture: Picture) -> Box | None:
    """x, y, width and height of the region's box in the picture, if it has a usable one."""
    pixels, norm = _four(content.get("box_xyxy")), _four(content.get("box_norm"))
    if pixels:
        x1, y1, x2, y2 = (value * picture.scale for value in pixels)
    elif norm:
        (x1, x2), (y1, y2) = (
            (norm[axis] * side, norm[axis + 2] * side)
            for axis, side in enumerate((picture.width_px, picture.height_px))
        )
    else:
        return None
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        return None
    return x1, y1, x2 - x1, y2 - y1


def _four(values: Any) -> list[float]:
    """Four numbers, or none where a dropped region has something else."""
    is_box = isinstance(values, list) and len(values) == 4
    return values if is_box and all(map(_is_place, values)) else []


def _is_place(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < MAX_PLACE


JPEG_QUALITY = 80
NUMBER_RADIUS = 15.0  # in a picture that is 640 pixels wide
FEW_REGIONS = 6  # numbers of more are smaller
THIN_SHARE, NUMBER_GAP_SHARE = 0.045, 0.03  # of the picture's width
SIMPLIFY_PX = 0.6  # how far an outline may leave the mask's edge, in pixels of the small picture


def shrink(jpeg: bytes, max_side_px: int) -> Picture:
    """A picture no larger than `max_side_px` on its longer side."""
    image = open_image(jpeg)
    original_width = image.width
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(
        f"data:image/jpeg;base64,{text}", image.width, image.height, image.width / original_width
    )


def number_scale(num_regions: int, picture: Picture) -> float:
    """How large numbers are drawn, whose radius is `NUMBER_RADIUS` at 1."""
    return picture.width_px / 640 * (1.0 if num_regions <= FEW_REGIONS else 0.7)


def outlines_of(regions: Sequence[Mapping[str, Any]], picture: Picture) -> list[Outline]:
    """The outlines of an image's regions; those of parts have their boxes too.

    A number on a small part would hide it: it stands at a corner of the part's box, away from
    other parts and numbers. That of the whole image stands in the picture's corner.
    """
    radius = NUMBER_RADIUS * number_scale(len(regions), picture)
    boxes = [_part_box(region, picture) for region in regions]
    taken = [(x + width / 2, y + height / 2) for x, y, width, height in filter(None, boxes)]
    found = []
    for region, box in zip(regions, boxes, strict=True):
        if region.get("box_source") == WHOLE_IMAGE:
            shape = Outline("", 1.3 * radius, 1.3 * radius)
        elif box:
            drawn = outline(region["mask"], picture)
            corner = _free_corner(box, taken, radius, picture)
            x, y = (value * picture.scale for value in region.get("point_xy", (0, 0)))
            point = (x, y) if "point_xy" in region else None
            shape = Outline(drawn.path, *corner, box, point)
        else:
            shape = outline(region["mask"], picture)
        taken.append((shape.x, shape.y))
        found.append(shape)
    return found


def _part_box(region: Mapping[str, Any], picture: Picture) -> Box | None:
    if region.get("box_source", WHOLE_IMAGE) == WHOLE_IMAGE:
        return None
    x1, y1, x2, y2 = (value * picture.scale for value in region["box_xyxy"])
    return x1, y1, x2 - x1, y2 - y1


def _free_corner(
    box: Box, taken: Sequence[tuple[float, float]], radius: float, picture: Picture
) -> tuple[float, float]:
    """The corner of a box, inside the picture, that is farthest from places that are taken."""
    x, y, width, height = box
    corners = [
        (
            min(max(corner_x, radius), picture.width_px - radius),
            min(max(corner_y, radius), picture.height_px - radius),
        )
        for corner_y in (y, y + height)
        for corner_x in (x, x + width)
    ]
    return max(corners, key=lambda corner: min(math.dist(corner, place) for place in taken))


def outline(mask: Mapping[str, Any], picture: Picture) -> Outline:
    """The outline of a mask in COCO RLE, in the picture's pixels."""
    import cv2

    height_px, width_px = mask["size"]
    full = decode_mask(Rle(height_px, width_px, mask["counts"])).astype(np.uint8)
    size = (picture.width_px, picture.height_px)
    soft = cv2.resize(full * 255, size, interpolation=cv2.INTER_AREA)
    small = soft >= min(128, int(soft.max()))  # a mask thinner than a pixel keeps its best pixels
    grid = small.astype(np.uint8)
    contours, _ = cv2.findContours(grid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    smooth = [cv2.approxPolyDP(contour, SIMPLIFY_PX, True)[:, 0] for contour in contours]
    x, y = _number_place(small)
    return Outline("".join(_svg_path(points) for points in smooth), x, y)


def _svg_path(points: Sequence[Sequence[int]]) -> str:
    steps = " ".join(f"{x + 0.5:g},{y + 0.5:g}" for x, y in points)
    return f"M{steps}Z"


def _number_place(mask: Mask) -> tuple[float, float]:
    """The point farthest from the mask's edge; above or below a mask that its number would hide."""
    import cv2

    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    x, y = float(column) - 0.5, float(row) - 0.5
    if depth.max() < THIN_SHARE * mask.shape[1]:
        _, top, _, bottom = mask_box(mask)
        gap = NUMBER_GAP_SHARE * mask.shape[1]
        y = top - gap if top >= 2 * gap else bottom + gap
    return x, y
