"""A small LongGRIT as `pack` writes it: scenes of coloured ellipses on soft grounds."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from components.core.shards import write_shard
from components.core.tables import write_rows
from components.data.pack.images import digests_of
from components.data.pack.plan import ShardPlan
from components.data.pack.writer import manifest_row, sample_json
from data_contracts.longgrit import SCHEMA
from pixclip.config import PreprocessConfig
from pixclip.data.config import DataConfig
from pixclip.data.loader import LongGrit
from pixclip.masks import encode_mask, mask_box
from pixclip.preprocess import Preprocess

SIZE_PX, PATCH_PX = 32, 8
PREPROCESS = Preprocess(SIZE_PX, PreprocessConfig())


@dataclass(frozen=True)
class Scene:
    """An encoded image and the rows of its regions."""

    jpeg: bytes
    rows: list[dict[str, Any]]

    @property
    def key(self) -> str:
        return str(self.rows[0]["image_sha256"])


class HashVectors:
    """Text embeddings that say which text they are of: the bytes of its hash."""

    def lookup(self, hashes: Sequence[str]) -> torch.Tensor:
        return torch.tensor([list(bytes.fromhex(text)) for text in hashes], dtype=torch.float32)


def draw_scene(number: int, num_regions: int, size: tuple[int, int] = (60, 44)) -> Scene:
    """A scene with up to four ellipses beside each other."""
    random = np.random.default_rng(number)
    noise = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    image = noise.resize(size, Image.Resampling.BICUBIC)
    masks = []
    for index in range(num_regions):
        left, top = size[0] * index // 4 + 1, int(random.integers(1, size[1] // 2))
        right, bottom = left + size[0] // 5, top + int(random.integers(3, size[1] // 2))
        drawn = Image.new("L", size, 0)
        ImageDraw.Draw(drawn).ellipse((left, top, right, bottom), fill=255)
        image.paste(tuple(map(int, random.integers(0, 256, 3))), mask=drawn)
        masks.append(np.asarray(drawn) > 0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    jpeg = buffer.getvalue()
    return Scene(jpeg, [_row(number, index, jpeg, mask) for index, mask in enumerate(masks)])


def _row(number: int, index: int, jpeg: bytes, mask: np.ndarray) -> dict[str, Any]:
    rle, sha256 = encode_mask(mask), hashlib.sha256(jpeg).hexdigest()
    return {
        "region_id": f"{number}-{index:02d}",
        "url": f"https://example.org/{number}.jpg",
        "image_caption": f"picture {number}",
        "phrase": f"thing {index}",
        "subset": "",
        "image_sha256": sha256,
        "image_width_px": mask.shape[1],
        "image_height_px": mask.shape[0],
        "image_phash": sha256[:16],
        "box_xyxy": list(mask_box(mask)),
        "mask_counts": rle.counts,
        "mask_size": [rle.height_px, rle.width_px],
        "mask_area_px": int(mask.sum()),
        "mask_source": "record",
        "mask_score": None,
        "object_caption": f"thing {index}",
        "context_caption": f"in picture {number}",
        "long_caption": f"long {number}-{index:02d}",
        "short_caption": f"short {number}-{index:02d}",
        "provenance": "{}",
    }


def write_longgrit(
    folder: Path, scenes: Sequence[Scene], per_shard: int = 3, split: str = "train"
) -> Path:
    """Pack scenes as a split."""
    manifest = []
    for index, start in enumerate(range(0, len(scenes), per_shard)):
        here = scenes[start : start + per_shard]
        plan = ShardPlan(split, index, digests_of(scene.key for scene in here))
        write_shard(
            folder / plan.name,
            (
                {"__key__": scene.key, "jpg": scene.jpeg, "json": sample_json(scene.rows)}
                for scene in here
            ),
        )
        manifest += [manifest_row(row, plan) for scene in here for row in scene.rows]
    write_rows(folder / "manifest.parquet", manifest, SCHEMA)
    return folder


def some_scenes(num: int = 10) -> list[Scene]:
    """Scenes of one to four regions."""
    return [draw_scene(number, 1 + number % 4) for number in range(num)]


def open_longgrit(folder_or_uri: Path | str, *, cache: Path | None = None, **config: Any):
    """A loader of the split `train` with small batches."""
    settings = DataConfig(**{"batch_size": 6, "shuffle_shards": 2} | config)
    return LongGrit(
        folder_or_uri, "train", PREPROCESS, PATCH_PX, HashVectors(), settings, cache_folder=cache
    )


def region_json(scene: Scene, index: int) -> dict[str, Any]:
    """A region as the shard says it."""
    found: dict[str, Any] = json.loads(json.dumps(sample_json(scene.rows)))["regions"][index]
    return found
