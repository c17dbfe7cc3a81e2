"""GRIT records of COCO images: captions that hold every name, and the regions' own masks."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.core.tables import Row
from components.data.formats.coco import Box, CocoImage, CocoRegion
from components.data.formats.segmentation import OwnMask, box_of_mask, own_mask
from components.data.formats.values import LeftOut
from data_contracts.reasons import ImportReason

Span = tuple[int, int]
ROUNDING_PX = 1.001  # tools round corners to whole pixels, and count them from 0 or from 1


@dataclass(frozen=True)
class Caption:
    """A caption that names every object, and where."""

    text: str
    spans: dict[str, Span]  # name -> [start, end) characters


def caption_of(image: CocoImage, names: Sequence[str]) -> Caption:
    """The image's captions; names that they do not contain are added in a sentence."""
    text = " ".join(_sentence(caption) for caption in image.captions)
    missing = [name for name in names if _find(name, text) is None]
    if missing and text:
        text += f" Also shown: {_joined(missing)}."
    elif missing:
        text = _joined(missing)
    spans = {name: _find(name, text) for name in names}
    return Caption(text, {name: span for name, span in spans.items() if span is not None})


def record_of(
    image: CocoImage, url: str, split: str, counts: Counter[str], left_out: LeftOut
) -> Row:
    """The record of an image; what is lost on the way is counted."""
    placed = list(_placed_regions(image, counts, left_out))
    names = list(dict.fromkeys(region.name for region, _, _ in placed))
    caption = caption_of(image, names)
    regions = [
        [*map(float, caption.spans[region.name]), *_shares(box, image), 1.0]
        for region, box, _ in placed
    ]
    return {
        "key": f"{image.image_id:09d}",
        "clip_similarity_vitb32": None,
        "clip_similarity_vitl14": None,
        "id": image.image_id,
        "url": url,
        "caption": caption.text,
        "width": image.width_px,
        "height": image.height_px,
        "noun_chunks": regions,
        "ref_exps": regions,
        "masks": [mask.counts for _, _, mask in placed],
        "mask_faults": [mask.fault for _, _, mask in placed],
        "split": split,
        "subset": "",
        "fault": "",
    }


def _placed_regions(
    image: CocoImage, counts: Counter[str], left_out: LeftOut
) -> Iterator[tuple[CocoRegion, Box, OwnMask]]:
    """The regions with their boxes and masks; a box that is missing is that of the mask."""
    for region in image.regions:
        mask = own_mask(region.segmentation, image.height_px, image.width_px, counts)
        if region.box_xywh is not None:
            yield region, region.box_xywh, mask
        elif mask.counts is not None:
            counts["boxes_from_masks"] += 1
            yield region, box_of_mask(mask.counts, image.height_px, image.width_px), mask
        else:
            detail = f"'bbox' is missing, and so is a mask to take it from: {mask.fault}"
            left_out.add(region.place, ImportReason.BAD_BOX, detail)


def _shares(box: Box, image: CocoImage) -> Box:
    """The corners of a box as shares of the image; what leaves it by rounding is cut off."""
    x, y, width, height = box
    return (
        _rounded_in(x, image.width_px) / image.width_px,
        _rounded_in(y, image.height_px) / image.height_px,
        _rounded_in(x + width, image.width_px) / image.width_px,
        _rounded_in(y + height, image.height_px) / image.height_px,
    )


def _rounded_in(value: float, side_px: int) -> float:
    is_near = -ROUNDING_PX <= value <= side_px + ROUNDING_PX
    return min(max(value, 0.0), side_px) if is_near else value


def _find(name: str, text: str) -> Span | None:
    """Where a text has the name as words of its own, whatever their case."""
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return found.span() if found else None


def _sentence(caption: str) -> str:
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def _joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
