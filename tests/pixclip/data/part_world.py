"""A small FG-Part: scenes whose ellipses are parts, each with a region that is the image itself."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pixclip.data.config import PartDataConfig
from pixclip.data.loader import FgPart
from pixclip.data.parts import PartsBatch
from pixclip.masks import encode_mask
from tests.pixclip.data.world import PREPROCESS, Scene, draw_scene, write_longgrit

PHRASES = ("left eye", "right eye", "beak", "tail")
END = 999


def part_scene(number: int, num_parts: int) -> Scene:
    """An image, the region that is all of it, and up to four parts."""
    scene = draw_scene(number, max(num_parts, 1))
    parts = [
        {**row, "phrase": PHRASES[place], "box_source": "points"}
        for place, row in enumerate(scene.rows[:num_parts])
    ]
    return replace(scene, rows=[_whole(scene), *parts])


def _whole(scene: Scene) -> dict:
    row = scene.rows[0]
    height, width = row["image_height_px"], row["image_width_px"]
    return {
        **row,
        "region_id": f"{row['region_id']}-image",
        "phrase": "bird",
        "box_source": "image",
        "box_xyxy": [0.0, 0.0, float(width), float(height)],
        "mask_counts": encode_mask(np.ones((height, width), dtype=bool)).counts,
        "mask_area_px": height * width,
        "long_caption": f"long of {row['region_id']}",
        "short_caption": f"short of {row['region_id']}",
    }


def write_fgpart(
    folder: Path, counts: Sequence[int] = (4, 0, 2, 3, 1, 4), split: str = "train"
) -> list[Scene]:
    """Pack an image for each number of parts; gives the scenes."""
    scenes = [part_scene(number, count) for number, count in enumerate(counts)]
    write_longgrit(folder, scenes, split=split)
    return scenes


def words(texts: Sequence[str]) -> torch.Tensor:
    """A token a word, an end marker, filled up with zeros."""
    rows = [[zlib.crc32(word.encode()) % 900 + 1 for word in text.split()] for text in texts]
    length = max((len(row) for row in rows), default=0) + 1
    filled = [[*row, END, *[0] * (length - 1 - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int64).reshape(len(rows), length)


def open_fgpart(folder: Path, preprocess=PREPROCESS, **config) -> FgPart:
    """A loader of the split `train` with small batches."""
    settings = PartDataConfig(**{"batch_size": 3, "shuffle_shards": 2} | config)
    return FgPart(folder, "train", preprocess, words, settings)


def epoch_of(data: FgPart, epoch: int = 0, **options) -> list[PartsBatch]:
    """All batches of an epoch."""
    return list(data.batches(epoch=epoch, **options))
