"""Captions, images and quarantine files as the steps before pack leave them, from drawn scenes."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from components.core.counts import quarantine_row, write_quarantine
from components.core.shards import write_shard
from components.core.tables import write_rows
from data_contracts import captions as captions_contract
from data_contracts import images as images_contract
from pixclip.masks import encode_mask, mask_box

COLOURS = {"red": (200, 60, 50), "green": (70, 150, 80), "blue": (60, 100, 190)}
OBJECTS = ("ball", "vase", "kite", "cushion")


@dataclass
class Run:
    """The inputs of pack, and what they were made of."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inputs(self) -> dict[str, Path]:
        return {
            "captions": self.folder / "captions",
            "images": self.folder / "images",
            "quarantines": self.folder / "quarantine",
        }


def backdrop(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A smooth, photograph-like backdrop."""
    noise = random.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def draw_scene(image: Image.Image, random: np.random.Generator) -> list[dict[str, Any]]:
    """Put three blurred ellipses into an image; their names and masks."""
    found: list[dict[str, Any]] = []
    width, height = image.size
    for index, (colour, rgb) in enumerate(COLOURS.items()):
        left = int(width * (0.04 + index * 0.32) + random.integers(0, 12))
        top = int(random.integers(height // 6, height // 2))
        right = left + int(random.integers(width // 6, width // 4))
        bottom = top + int(random.integers(height // 6, height // 3))
        alpha = Image.new("L", image.size, 0)
        ImageDraw.Draw(alpha).ellipse((left, top, right, bottom), fill=255)
        image.paste(rgb, mask=alpha.filter(ImageFilter.GaussianBlur(1)))
        phrase = f"a {colour} {OBJECTS[int(random.integers(len(OBJECTS)))]}"
        found.append({"phrase": phrase, "mask": np.asarray(alpha) > 127})
    return found


def caption_row(number: int, index: int, jpeg: bytes, image: Image.Image, found: Any) -> Any:
    """A row of `captions` that meets its schema."""
    phrase, mask = found["phrase"], found["mask"]
    rle = encode_mask(mask)
    place = ("on the left", "in the middle", "on the right")[index % 3]
    said = {"describer": "embedded", "model": "rules", "prompt": "", "prompt_version": "1"}
    texts = {
        "object_caption": f"{phrase} with a smooth surface and a soft edge",
        "context_caption": f"{place} of the picture",
        "long_caption": f"{phrase} with a smooth surface and a soft edge lies {place} of the "
        f"picture, between the other two things, and fills {100 * mask.mean():.0f} per cent of it",
        "short_caption": f"{phrase} {place}",
    }
    return {
        "region_id": f"{number}-{index:02d}",
        "record_id": str(number),
        "url": f"https://pictures.example/{number:06d}.jpg",
        "image_caption": "three things on a plain ground",
        "phrase": phrase,
        "score": 0.9,
        "split": "",
        "subset": "",
        "image_sha256": hashlib.sha256(jpeg).hexdigest(),
        "image_shard": "00000.tar",
        "image_width_px": image.width,
        "image_height_px": image.height,
        "image_phash": hashlib.sha256(jpeg).hexdigest()[:16],
        "box_xyxy": list(mask_box(mask)),
        "mask_counts": rle.counts,
        "mask_size": [rle.height_px, rle.width_px],
        "mask_area_px": int(mask.sum()),
        "mask_source": "record",
        "mask_score": None,
        **texts,
        "verdict": "accepted",
        "verdict_reason": "consistent",
        "provenance": json.dumps(dict.fromkeys(("object", "context", "merge"), said)),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": 0.0,
    }


Change = Callable[[dict[str, Any], int], None]


def build_run(
    folder: Path,
    *,
    num_images: int = 12,
    num_groups: int = 2,
    size: tuple[int, int] = (96, 72),
    change: Change | None = None,
    backdrops: Callable[[int], Image.Image] | None = None,
) -> Run:
    """Write a run; `change` edits each row, told the number of its image."""
    run = Run(folder)
    random = np.random.default_rng(7)
    per_group = -(-num_images // num_groups)
    for group in range(num_groups):
        samples, manifest, rows = [], [], []
        for number in range(group * per_group, min(num_images, (group + 1) * per_group)):
            image = backdrops(number) if backdrops else backdrop(random, size)
            scene = draw_scene(image, random)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            jpeg = buffer.getvalue()
            sha256 = hashlib.sha256(jpeg).hexdigest()
            samples.append({"__key__": sha256, "jpg": jpeg})
            made = [caption_row(number, i, jpeg, image, found) for i, found in enumerate(scene)]
            for row in made:
                if change:
                    change(row, number)
            rows += made
            manifest.append(
                {
                    "url": f"https://pictures.example/{number:06d}.jpg",
                    "status": "ok",
                    "reason": "",
                    "detail": "",
                    "sha256": sha256,
                    "shard": "00000.tar",
                    "num_bytes": len(jpeg),
                    "width_px": image.width,
                    "height_px": image.height,
                    "phash": made[0]["image_phash"],
                    "stored_width": image.width,
                    "stored_height": image.height,
                    "orientation": 1,
                }
            )
        images, name = folder / "images" / f"{group:05d}", f"{group:05d}"
        write_shard(images / "00000.tar", samples)
        write_rows(images / "manifest.parquet", manifest, images_contract.SCHEMA)
        captions = folder / "captions" / name / "part-00000.parquet"
        write_rows(captions, rows, captions_contract.SCHEMA)
        run.rows += rows
    quarantine_some(run)
    return run


def quarantine_some(run: Run) -> None:
    """Five dropped regions: without an image, with a box only, with a mask and a caption."""
    second, third = run.rows[3], run.rows[7]
    gone = {"region_id": "900-00", "record_id": "900", "url": "https://gone.example/x.jpg"}
    selected = {**gone, "phrase": "a far kite", "box_norm": [0.1, 0.1, 0.104, 0.104]}
    described = {**third, "region_id": "903-00"}
    files = {
        "select": [quarantine_row("select", selected, "small_box", "0.00001 of the image")],
        "ingest-00000": [
            quarantine_row("ingest", {**selected, "region_id": f"901-0{i}"}, "http_404", "gone")
            for i in range(2)
        ],
        "segment-00000": [
            quarantine_row(
                "segment", {**second, "region_id": "902-00"}, "empty_mask", "no pixel was chosen"
            )
        ],
        "describe-00000": [
            quarantine_row("describe", described, "rejected_invisible", "it speaks of a dog")
        ],
    }
    for name, rows in files.items():
        write_quarantine(run.folder / "quarantine" / f"{name}.parquet", rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Build a run in a new folder; see `build_run`."""

    def make(name: str = "run", **options: Any) -> Run:
        return build_run(tmp_path / name, **options)

    return make
