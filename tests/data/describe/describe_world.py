"""Small inputs for `describe`: images in shards, region rows with masks, and its settings."""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from components.core.shards import write_shard
from components.core.step import load_step
from components.core.tables import read_rows, write_rows
from components.data.describe.settings import (
    DescribePartsSettings,
    DescriberSettings,
    DescribeSettings,
)
from data_contracts.images import SCHEMA as IMAGES_SCHEMA
from data_contracts.regions import SCHEMA
from pixclip.masks import encode_mask

WIDTH_PX, HEIGHT_PX = 96, 64
AnySettings = TypeVar("AnySettings", bound=DescriberSettings)


def photograph(seed: int) -> bytes:
    """A JPEG of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((WIDTH_PX, HEIGHT_PX)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def region_row(image: int, index: int, sha256: str, phrase: str = "") -> dict[str, Any]:
    """A region whose mask is an ellipse in its box."""
    x1, y1 = 8 + 24 * (index % 3), 8 + 12 * (index // 3 % 3)
    x2, y2 = x1 + 24, y1 + 20
    rows, columns = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    mask = ((columns - x1 - 12) / 12) ** 2 + ((rows - y1 - 10) / 10) ** 2 <= 1
    rle = encode_mask(mask)
    return {
        "region_id": f"{image}-{index:02d}",
        "record_id": str(image),
        "url": f"https://example.test/{image}.jpg",
        "image_caption": f"A kitchen table with several things, picture {image}",
        "phrase": phrase or f"thing {image} {index}",
        "score": 0.9,
        "split": "",
        "subset": "",
        "box_source": None,
        "point_xy": None,
        "image_sha256": sha256,
        "image_shard": "00000.tar",
        "image_width_px": WIDTH_PX,
        "image_height_px": HEIGHT_PX,
        "image_phash": "0" * 16,
        "box_xyxy": [float(x1), float(y1), float(x2), float(y2)],
        "mask_counts": rle.counts,
        "mask_size": [HEIGHT_PX, WIDTH_PX],
        "mask_area_px": int(mask.sum()),
        "mask_source": "record",
        "mask_score": None,
    }


def manifest_row(image: int, sample: dict[str, Any]) -> dict[str, Any]:
    """What ingest says of an image."""
    return {
        "url": f"https://example.test/{image}.jpg",
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": sample["__key__"],
        "shard": "00000.tar",
        "num_bytes": len(sample["jpg"]),
        "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX,
        "phash": "0" * 16,
        "stored_width": WIDTH_PX,
        "stored_height": HEIGHT_PX,
        "orientation": 1,
    }


@dataclass(frozen=True)
class World:
    """The inputs of a run, and where its outputs go."""

    folder: Path

    @property
    def inputs(self) -> dict[str, Path]:
        """The inputs of the step."""
        return {"regions": self.folder / "regions" / "00000", "images": self.folder / "images"}

    def outputs(self, name: str = "out") -> dict[str, Path]:
        """The outputs of a run of that name."""
        base = self.folder / name
        return {
            "captions": base / "captions",
            "quarantine": base / "quarantine.parquet",
            "ledger": base / "ledger.json",
        }

    def run(self, settings: DescriberSettings, name: str = "out") -> "Result":
        """Run the function and the gate of the settings' step."""
        outputs, step = self.outputs(name), load_step(settings.step)
        metrics = step.function(**self.inputs, **outputs, settings=settings)
        step.judge(metrics, settings)
        return Result(outputs, metrics)

    def forget_answers(self) -> None:
        """Remove the answers of all runs, so that everything is asked again."""
        for folder in self.folder.glob("*/answers"):
            shutil.rmtree(folder)

    def rewrite_regions(self, rows: list[dict[str, Any]]) -> None:
        """Put other region rows in."""
        write_rows(self.inputs["regions"] / "part-00000.parquet", rows, SCHEMA)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The region rows."""
        return list(read_rows(self.inputs["regions"]))


@dataclass(frozen=True)
class Result:
    """The outputs of a run."""

    outputs: dict[str, Path]
    metrics: dict[str, int | float]

    @property
    def captions(self) -> list[dict[str, Any]]:
        """The accepted rows."""
        return list(read_rows(self.outputs["captions"]))

    @property
    def quarantine(self) -> list[dict[str, Any]]:
        """The rejected rows."""
        return list(read_rows(self.outputs["quarantine"]))

    @property
    def reasons(self) -> dict[str, str]:
        """Rejected region -> reason."""
        return {row["region_id"]: row["reason"] for row in self.quarantine}

    @property
    def ledger(self) -> dict[str, Any]:
        """The ledger."""
        return dict(json.loads(self.outputs["ledger"].read_text()))

    def digests(self) -> dict[str, str]:
        """Hashes of the files that must be the same for the same answers."""
        files = [*sorted(self.outputs["captions"].glob("*.parquet")), self.outputs["quarantine"]]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def make_world(folder: Path, num_images: int = 2, regions_per_image: int = 2) -> World:
    """Write inputs with so many images and regions."""
    samples, rows = [], []
    for image in range(num_images):
        data = photograph(image)
        sha256 = hashlib.sha256(data).hexdigest()
        samples.append({"__key__": sha256, "jpg": data})
        rows += [region_row(image, index, sha256) for index in range(regions_per_image)]
    write_shard(folder / "images" / "00000.tar", samples)
    manifest = [manifest_row(image, sample) for image, sample in enumerate(samples)]
    write_rows(folder / "images" / "manifest.parquet", manifest, IMAGES_SCHEMA)
    world = World(folder)
    world.rewrite_regions(rows)
    return world


def settings_for(*urls: str, **changes: Any) -> DescribeSettings:
    """Settings that ask these endpoints, patient for seconds instead of minutes."""
    return _asking(DescribeSettings, urls, {"min_long_words": 20, **changes})


def part_settings_for(*urls: str, **changes: Any) -> DescribePartsSettings:
    """As `settings_for`, of `describe_parts`."""
    return _asking(DescribePartsSettings, urls, changes)


def _asking(kind: type[AnySettings], urls: tuple[str, ...], changes: dict[str, Any]) -> AnySettings:
    stages: dict[str, Any] = {
        stage: {
            "endpoints": urls,
            "model": f"{stage}-model",
            "prompt_usd_per_million": 1.0,
            "completion_usd_per_million": 10.0,
            **changes.pop(stage, {}),
        }
        for stage in kind().stages
    }
    patience = {
        "request_timeout_s": 5.0,
        "connect_timeout_s": 2.0,
        "probe_interval_s": 0.1,
        "give_up_after_s": 20.0,
        "min_accepted_share": 0.0,
        "concurrency": 8,
    }
    return kind(describer="endpoints", **{**patience, **stages, **changes})


def make_part_world(folder: Path, subsets: Sequence[str] = ("bird", "")) -> World:
    """An image a super-class: the region that is all of it, then three parts."""
    world = make_world(folder, num_images=len(subsets), regions_per_image=4)
    rows = world.rows
    for row in rows:
        image, index = map(int, row["region_id"].split("-"))
        row["subset"] = subsets[image]
        row["image_caption"] = "A bird. Parts: left eye, beak, tail."
        row["phrase"] = ("bird", "left eye", "beak", "tail")[index]
        row["box_source"] = "points" if index else "image"
        if not index:
            whole = encode_mask(np.ones((HEIGHT_PX, WIDTH_PX), dtype=bool))
            row |= {"mask_counts": whole.counts, "mask_area_px": WIDTH_PX * HEIGHT_PX}
            row["box_xyxy"] = [0.0, 0.0, float(WIDTH_PX), float(HEIGHT_PX)]
    world.rewrite_regions(rows)
    return world
