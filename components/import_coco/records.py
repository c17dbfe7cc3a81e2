"""GRIT records of COCO images."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from components.import_coco.annotations import CocoImage, CocoRegion
from components.import_coco.segmentation import UnusableMaskError, mask_counts
from components.kernel.tables import Row

Span = tuple[int, int]


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


def record_of(image: CocoImage, url: str, split: str, counts: Counter[str]) -> Row:
    """The record of an image; what is lost on the way is counted."""
    names = list(dict.fromkeys(region.name for region in image.regions))
    caption = caption_of(image, names)
    regions = [
        [*map(float, caption.spans[region.name]), *_box(region, image), 1.0]
        for region in image.regions
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
        "masks": [_mask(region, image, counts) for region in image.regions],
        "split": split,
        "subset": "",
        "fault": "",
    }


def _box(region: CocoRegion, image: CocoImage) -> tuple[float, float, float, float]:
    x, y, width, height = region.box_xywh
    return (
        x / image.width_px,
        y / image.height_px,
        (x + width) / image.width_px,
        (y + height) / image.height_px,
    )


def _mask(region: CocoRegion, image: CocoImage, counts: Counter[str]) -> str | None:
    try:
        return mask_counts(region.segmentation, image.height_px, image.width_px)
    except UnusableMaskError:
        counts["masks_unusable"] += 1
        return None


def _find(name: str, text: str) -> Span | None:
    """Where a text has the name as words of its own, whatever their case."""
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return found.span() if found else None


def _sentence(caption: str) -> str:
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def _joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
