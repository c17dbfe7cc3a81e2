"""Processor seconds of the contracts on many regions, and of reading their masks.

    python benchmarks/contracts_million.py --num-regions 1000000 [--folder FOLDER]

The masks are polygons of photographs' size, no two alike. Peers in the same run, on fewer rows:
masks one at a time (`pixclip.masks.rle_num_pixels` and pycocotools' area), and Great Expectations.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from data_contracts.engine.check import check_table
from data_contracts.engine.data_docs import validate_chunk
from data_contracts.engine.mask_counts import read_counts
from data_contracts.regions import SCHEMA
from pixclip.masks import rle_num_pixels

WIDTH, HEIGHT = 640, 480
NUM_SHAPES, PART_ROWS = 1000, 10_000
NUM_PEER_MASKS, NUM_PEER_ROWS = 10_000, 100_000
WORDS = np.array(["a", "red", "dog", "on", "the", "street", "with", "one", "woman", "at", "sunset"])


def main() -> None:
    """Write the tables, check them and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-regions", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if empty")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        regions, few = Path(folder) / "regions", Path(folder) / "few"
        write_regions(regions, options.num_regions)
        write_regions(few, min(options.num_regions, NUM_PEER_ROWS))
        found = {**measure_masks(few), **measure_contract(regions, few, options.num_regions)}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")


def measure_masks(regions: Path) -> dict[str, float]:
    """Microseconds of processor time a mask, in bulk and one at a time."""
    column = pq.read_table(regions, columns=["mask_counts"])["mask_counts"]
    texts = column.slice(0, NUM_PEER_MASKS).to_pylist()
    in_bulk = seconds(lambda: read_counts(column)) / len(column)
    alone = seconds(lambda: [_read_one(text) for text in texts]) / len(texts)
    return {
        "characters_a_mask": round(float(np.mean([len(text) for text in texts])), 1),
        "us_a_mask": round(in_bulk * 1e6, 2),
        "us_a_mask_one_at_a_time": round(alone * 1e6, 2),
        "times_faster": round(alone / in_bulk, 1),
    }


def measure_contract(regions: Path, few: Path, num_regions: int) -> dict[str, float]:
    """Processor seconds of the contract, after a first run that imports."""
    assert not check_table("regions", few, evaluate=validate_chunk).failures
    around_step = seconds(lambda: check_table("regions", regions))
    with_receipt = seconds(lambda: check_table("regions", regions, has_receipt=True))
    record = seconds(lambda: check_table("regions", few, evaluate=validate_chunk))
    arrow = seconds(lambda: check_table("regions", few))
    return {
        "num_regions": num_regions,
        "s_around_a_step": round(around_step, 2),
        "s_with_a_receipt": round(with_receipt, 2),
        "times_faster_than_great_expectations": round(record / arrow, 2),
    }


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _read_one(counts: str) -> tuple[int, int]:
    area = coco.area({"size": [HEIGHT, WIDTH], "counts": counts})
    return rle_num_pixels(counts), int(area)


def write_regions(folder: Path, num_regions: int) -> None:
    """Parquet files of rows that meet the contract of `regions`."""
    shapes = [_shape(np.random.default_rng(number)) for number in range(NUM_SHAPES)]
    folder.mkdir(parents=True)
    for start in range(0, num_regions, PART_ROWS):
        numbers = np.arange(start, min(start + PART_ROWS, num_regions))
        masks = [shapes[n % NUM_SHAPES].moved(int(n) // NUM_SHAPES) for n in numbers]
        areas = [shapes[n % NUM_SHAPES].area_px for n in numbers]
        table = _table(numbers, masks, areas)
        pq.write_table(table, folder / f"part-{start:09d}.parquet", compression="zstd")


class Shape:
    """A mask whose other places in the image are made without encoding it anew."""

    def __init__(self, runs: list[int]) -> None:
        """`runs` as in COCO, of which the first and the last are large."""
        self.first, self.last, self.before_last = runs[0], runs[-1], runs[-3]
        self.area_px = sum(runs[1::2])
        differences = (
            number - (runs[place - 2] if place > 2 else 0) for place, number in enumerate(runs)
        )
        self.between = "".join("".join(_characters(n)) for n in list(differences)[1:-1])

    def moved(self, num_pixels: int) -> str:
        """The counts of the mask so many pixels earlier in COCO's order."""
        shift = num_pixels % self.first
        last = self.last + shift - self.before_last
        return "".join((*_characters(self.first - shift), self.between, *_characters(last)))


def _shape(random: np.random.Generator) -> Shape:
    """A star of random rays, a few hundred characters as segmenters' masks."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rays = random.uniform(0.4, 1.0, len(angles)) * random.uniform(50, 100)
    corners = np.stack([320 + rays * np.cos(angles), 240 + rays * np.sin(angles)], axis=1)
    (encoded,) = coco.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH)
    pixels = coco.decode(encoded).ravel(order="F")
    edges = np.flatnonzero(np.diff(pixels, prepend=0))
    return Shape(np.diff([0, *edges, len(pixels)]).tolist())


def _characters(number: int) -> Iterator[str]:
    """A number as COCO writes it."""
    while not -16 <= number < 16:
        yield chr(48 + (number & 31 | 32))
        number >>= 5
    yield chr(48 + (number & 31))


def _table(numbers: np.ndarray, masks: list[str], areas: list[int]) -> pa.Table:
    words = WORDS[
        np.random.default_rng(int(numbers[0])).integers(len(WORDS), size=(len(numbers), 10))
    ]
    captions = [" ".join(row) for row in words]
    rows = {
        "region_id": [f"{number}-00" for number in numbers],
        "record_id": [str(number) for number in numbers],
        "url": [f"https://example.org/{number}.jpg" for number in numbers],
        "image_caption": captions,
        "phrase": [" ".join(row[:3]) for row in words],
        "score": np.full(len(numbers), 0.9),
        "split": [""] * len(numbers),
        "subset": [""] * len(numbers),
        "image_sha256": [f"{number:064x}" for number in numbers],
        "image_shard": ["00000.tar"] * len(numbers),
        "image_width_px": np.full(len(numbers), WIDTH),
        "image_height_px": np.full(len(numbers), HEIGHT),
        "image_phash": [f"{number:016x}" for number in numbers],
        "box_xyxy": [[100.0, 20.0, 540.0, 460.0]] * len(numbers),
        "mask_counts": masks,
        "mask_size": [[HEIGHT, WIDTH]] * len(numbers),
        "mask_area_px": areas,
        "mask_source": ["grabcut"] * len(numbers),
        "mask_fault": pa.nulls(len(numbers)),
        "box_source": pa.nulls(len(numbers)),
        "mask_score": pa.nulls(len(numbers)),
    }
    return pa.table({field.name: pa.array(rows[field.name], field.type) for field in SCHEMA})


if __name__ == "__main__":
    main()
