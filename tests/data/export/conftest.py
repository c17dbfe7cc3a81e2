"""A small data set in the form that `pack` publishes."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from components.core.shards import write_shard
from pixclip.masks import encode_mask, mask_box

SIZES = {"train": [3, 2], "val": [1], "benchmark": [2]}  # images of each shard


def region(number, index, rows, columns):
    mask = np.zeros((48, 64), dtype=bool)
    mask[rows, columns] = True
    rle = encode_mask(mask)
    return {
        "region_id": f"{number}-{index:02d}",
        "box_xyxy": list(mask_box(mask)),
        "mask": {"size": [48, 64], "counts": rle.counts},
        "phrase": f"thing “{index}”",
        "object_caption": "a grey thing",
        "context_caption": "on the left",
        "long_caption": "a grey thing on the left of the picture, beside another one",
        "short_caption": "a grey thing",
        "provenance": {"mask": {"source": "record", "score": None}, "merge": {"model": "rules"}},
    }


def sample(number):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (number * 20, 90, 90)).save(buffer, "JPEG")
    key = hashlib.sha256(buffer.getvalue()).hexdigest()
    content = {
        "image_id": key,
        "caption": f"picture {number}",
        "url": f"https://pictures.example/{number}.jpg",
        "width_px": 64,
        "height_px": 48,
        "subset": "held_out_objects" if number == 7 else "",
        "regions": [
            region(number, 0, slice(4, 20), slice(5, 30)),
            region(number, 1, slice(30, 44 - number), slice(40, 60)),
        ],
    }
    return {"__key__": key, "jpg": buffer.getvalue(), "json": content}


@pytest.fixture
def dataset(tmp_path):
    """Eight images with two regions each, in all splits."""
    folder, number = tmp_path / "longgrit", 0
    for split, shards in SIZES.items():
        for index, size in enumerate(shards):
            samples = [sample(number + offset) for offset in range(size)]
            write_shard(folder / split / f"{index:05d}.tar", samples)
            number += size
    return folder
