"""COCO JSON: one file a split, one annotation a region, masks as compressed RLE.

The format: https://cocodataset.org/#format-data. Phrases are an open vocabulary, so there is one
category, "region"; each annotation carries its phrase and captions as further fields.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.export.samples import SPLITS, Sample, read_samples
from components.kernel.progress import progress
from pixclip.masks import Rle, decode_mask

TEXT_FIELDS = ("phrase", "object_caption", "context_caption", "long_caption", "short_caption")
CATEGORY = {"id": 1, "name": "region", "supercategory": "region"}


class Numbers:
    """Running ids of images and annotations, unique over all splits."""

    def __init__(self) -> None:
        """Start at 1: many readers take 0 for missing."""
        self.image = self.annotation = 1


def write_coco(longgrit: Path, folder: Path) -> dict[str, int]:
    """Write `{split}.json` and `images/{split}/*.jpg`; gives the number of images by split."""
    numbers, counts = Numbers(), {}
    with progress("export: COCO", unit="image") as bar:
        for split in SPLITS:
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            first = numbers.image
            for _ in _write_split(longgrit, folder, split, numbers):
                bar.update(1)
            counts[split] = numbers.image - first
    return counts


def _write_split(longgrit: Path, folder: Path, split: str, numbers: Numbers) -> Iterator[Sample]:
    """Stream a split to its JSON file; annotations wait in a file of their own."""
    path = folder / f"{split}.json"
    images, annotations = path.with_suffix(".images"), path.with_suffix(".annotations")
    with (
        images.open("w", encoding="utf-8") as image_file,
        annotations.open("w", encoding="utf-8") as annotation_file,
    ):
        image_separator = annotation_separator = "\n"
        for sample in read_samples(longgrit, split):
            file_name = f"{split}/{sample.key}.jpg"
            (folder / "images" / file_name).write_bytes(sample.jpeg)
            image_file.write(image_separator + _line(image_entry(sample, file_name, numbers)))
            image_separator = ",\n"
            for region in sample.content["regions"]:
                entry = annotation_entry(region, numbers)
                annotation_file.write(annotation_separator + _line(entry))
                annotation_separator = ",\n"
                numbers.annotation += 1
            numbers.image += 1
            yield sample
    _assemble(path, images, annotations)


def _assemble(path: Path, images: Path, annotations: Path) -> None:
    info = {"description": f"LongGRIT, split {path.stem}"}
    with path.open("wb") as file:
        file.write(f'{{"info": {_line(info)}, "licenses": [],\n'.encode())
        file.write(f'"categories": [{_line(CATEGORY)}],\n"images": ['.encode())
        _append(file, images)
        file.write(b'],\n"annotations": [')
        _append(file, annotations)
        file.write(b"]}\n")


def _append(target: Any, source: Path) -> None:
    with source.open("rb") as file:
        shutil.copyfileobj(file, target)
    source.unlink()


def image_entry(sample: Sample, file_name: str, numbers: Numbers) -> dict[str, Any]:
    """COCO's image entry; `file_name` is relative to the folder `images`."""
    content = sample.content
    return {
        "id": numbers.image,
        "file_name": file_name,
        "width": content["width_px"],
        "height": content["height_px"],
        "image_id": content["image_id"],
        "caption": content["caption"],
        "coco_url": content["url"],
        "subset": content["subset"],
    }


def annotation_entry(region: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """COCO's annotation of a region, with its captions."""
    height_px, width_px = region["mask"]["size"]
    mask = decode_mask(Rle(height_px, width_px, region["mask"]["counts"]))
    x1, y1, x2, y2 = region["box_xyxy"]
    return {
        "id": numbers.annotation,
        "image_id": numbers.image,
        "category_id": CATEGORY["id"],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "segmentation": region["mask"],
        "iscrowd": 0,
        "region_id": region["region_id"],
        **{name: region[name] for name in TEXT_FIELDS},
    }


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
