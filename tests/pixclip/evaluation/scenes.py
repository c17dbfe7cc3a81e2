"""Small scenes of coloured rectangles, as samples and as a packed data set."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.shards import write_shard
from components.core.tables import write_rows
from data_contracts.longgrit import SCHEMA
from pixclip.data.samples import Region, Sample
from pixclip.masks import encode_mask, mask_box

COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200)}
PLACES = {"left": 2, "centre": 18, "right": 34}
SIZE = (48, 40)
SUBSETS = ("seen_objects", "held_out_objects")


def scene(number: int, *, subset: str = "", num_regions: int = 3, caption: str | None = None):
    """The sample of an image with up to three rectangles on a ground of its own."""
    random = np.random.default_rng(number)
    pixels = np.full((SIZE[1], SIZE[0], 3), random.integers(90, 200, 3), dtype=np.uint8)
    regions = []
    names = random.permutation(list(COLOURS))[:num_regions]
    for index, (colour, (place, left)) in enumerate(zip(names, PLACES.items(), strict=False)):
        mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
        top = int(random.integers(2, 16))
        mask[top : top + int(random.integers(8, 20)), left : left + 12] = True
        pixels[mask] = COLOURS[str(colour)]
        name = f"a {colour} rectangle"
        regions.append(
            Region(
                region_id=f"{number:04d}-{index}",
                mask=encode_mask(mask),
                box_xyxy=mask_box(mask),
                phrase=name,
                object_caption=f"{name} with sharp corners",
                context_caption=f"on the {place} of picture {number}",
                long_caption=f"{name} with sharp corners on the {place} of picture {number}",
                short_caption=f"{name} on the {place}",
            )
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    said = f"picture {number}" if caption is None else caption
    place = {"shard": "benchmark/00000.tar", "key": sha256, "image_id": sha256}
    return Sample(
        **place,
        caption=said,
        width_px=SIZE[0],
        height_px=SIZE[1],
        subset=subset,
        regions=tuple(regions),
        jpeg=buffer.getvalue(),
    )


def scenes(number: int) -> list[Sample]:
    """Scenes of two subsets, some with one region only."""
    return [scene(n, subset=SUBSETS[n % 2], num_regions=1 + (n + 2) % 3) for n in range(number)]


def write_longgrit(folder: Path, samples: list[Sample], split: str = "benchmark") -> None:
    """Pack samples as the pipeline does: a shard and the manifest."""
    shard = f"{split}/00000.tar"
    packed = [
        {"__key__": sample.key, "jpg": sample.jpeg, "json": _description(sample)}
        for sample in samples
    ]
    write_shard(folder / shard, packed)
    rows = [_row(sample, region, split, shard) for sample in samples for region in sample.regions]
    write_rows(folder / "manifest.parquet", rows, SCHEMA)


def _description(sample: Sample) -> dict[str, Any]:
    names = ("image_id", "caption", "width_px", "height_px", "subset")
    regions = [
        {
            **_texts(region),
            "region_id": region.region_id,
            "box_xyxy": list(region.box_xyxy),
            "mask": {
                "size": [region.mask.height_px, region.mask.width_px],
                "counts": region.mask.counts,
            },
        }
        for region in sample.regions
    ]
    return {**{name: getattr(sample, name) for name in names}, "regions": regions}


def _texts(region: Region) -> dict[str, str]:
    names = ("phrase", "object_caption", "context_caption", "long_caption", "short_caption")
    return {name: getattr(region, name) for name in names}


def _row(sample: Sample, region: Region, split: str, shard: str) -> dict[str, Any]:
    x1, y1, x2, y2 = region.box_xyxy
    return {
        **_texts(region),
        "region_id": region.region_id,
        "image_id": sample.image_id,
        "split": split,
        "subset": sample.subset,
        "shard": shard,
        "key": sample.key,
        "box_xyxy": list(region.box_xyxy),
        "mask_area_px": int((x2 - x1) * (y2 - y1)),
        "image_width_px": sample.width_px,
        "image_height_px": sample.height_px,
        "image_phash": sample.image_id[:16],
        "mask_source": "record",
        "long_caption_words": len(region.long_caption.split()),
        "short_caption_words": len(region.short_caption.split()),
    }
