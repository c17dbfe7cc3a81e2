"""A small group of candidates: pictures of coloured ellipses with exact masks."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from components.core.shards import write_shard
from components.core.tables import Row, write_rows
from data_contracts.candidates import SCHEMA
from data_contracts.images import SCHEMA as MANIFEST_SCHEMA
from pixclip.masks import Mask, encode_mask, mask_box

SHARD = "00000.tar"


@dataclass
class Group:
    """The inputs of segment in a folder, and the truth about them."""

    root: Path
    rows: list[Row] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, Mask] = field(default_factory=dict)

    def add(self, seed: int, num_objects: int = 2, has_masks: bool = True) -> list[Row]:
        """One more picture with some objects; gives its rows."""
        image, masks = picture(seed, num_objects)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        self.samples.append({"__key__": sha256, "jpg": buffer.getvalue()})
        rows = [candidate(seed, i, sha256, image, mask) for i, mask in enumerate(masks)]
        for row, mask in zip(rows, masks, strict=True):
            self.truth[row["region_id"]] = mask
            if not has_masks:
                row["mask_counts"] = row["mask_size"] = None
        self.rows += rows
        return rows

    def write(self) -> dict[str, Path]:
        """The inputs as files."""
        paths = {"candidates": self.root / "candidates", "images": self.root / "images"}
        write_rows(paths["candidates"] / "part-00000.parquet", self.rows, SCHEMA)
        write_shard(paths["images"] / SHARD, self.samples)
        manifest = {row["url"]: manifest_row(row) for row in self.rows}
        write_rows(paths["images"] / "manifest.parquet", manifest.values(), MANIFEST_SCHEMA)
        return paths


def picture(seed: int, num_objects: int) -> tuple[Image.Image, list[Mask]]:
    """Ellipses side by side on a noisy ground, of a size that differs from seed to seed."""
    rng = np.random.default_rng(seed)
    height_px, column_px = 90 + 7 * (seed % 5), 80
    noise = rng.integers(0, 40, (height_px, column_px * num_objects, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    masks = []
    for i in range(num_objects):
        left, top = column_px * i + 15 + int(rng.integers(0, 8)), 20 + int(rng.integers(0, 10))
        ellipse = (left, top, left + 44, top + 38)
        stencil = Image.new("1", image.size)
        ImageDraw.Draw(stencil).ellipse(ellipse, fill=1)
        colour = (*(int(value) for value in rng.integers(150, 255, 2)), 60)
        ImageDraw.Draw(image).ellipse(ellipse, fill=colour)
        masks.append(np.asarray(stencil))
    return image, masks


def candidate(seed: int, index: int, sha256: str, image: Image.Image, mask: Mask) -> Row:
    """A row as deduplicate writes it."""
    rle = encode_mask(mask)
    return {
        "region_id": f"{seed}-{index:02d}",
        "record_id": str(seed),
        "url": f"file:///images/{seed}.png",
        "image_caption": "ellipses",
        "phrase": "an ellipse",
        "score": 0.9,
        "split": "",
        "subset": "",
        "image_sha256": sha256,
        "image_shard": SHARD,
        "image_width_px": image.width,
        "image_height_px": image.height,
        "image_phash": "0" * 16,
        "box_xyxy": list(mask_box(mask)),
        "mask_counts": rle.counts,
        "mask_size": [rle.height_px, rle.width_px],
    }


def manifest_row(row: Row) -> Row:
    """The manifest's row of a candidate's image."""
    return {
        "url": row["url"],
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": row["image_sha256"],
        "shard": row["image_shard"],
        "num_bytes": 1000,
        "width_px": row["image_width_px"],
        "height_px": row["image_height_px"],
        "phash": row["image_phash"],
        "stored_width": row["image_width_px"],
        "stored_height": row["image_height_px"],
        "orientation": 1,
    }


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


@pytest.fixture
def outputs(tmp_path: Path) -> Callable[[str], dict[str, Path]]:
    """Output paths under a name."""

    def make(name: str = "out") -> dict[str, Path]:
        return {
            "regions": tmp_path / name / "regions",
            "quarantine": tmp_path / name / "quarantine.parquet",
        }

    return make
