"""Memory and processor seconds of `pack` an image: the step itself, without its contracts.

    python benchmarks/pack_memory.py [--sizes 20000 60000] [--folder FOLDER]

Every size runs in a process of its own. What grows with the data set is the difference of two
peaks over the difference of their images; the images are a few bytes each, two regions an image.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.core.counts import write_quarantine
from components.core.shards import write_shard
from components.core.tables import Row, write_rows
from components.data.pack.settings import PackSettings
from components.data.pack.step import pack
from data_contracts.captions import SCHEMA

GROUP_IMAGES = 10_000
CAPTION = "a small red thing with a soft edge that lies on the left of a plain ground"


def main() -> None:
    """Print a line for each size and the bytes an image between the first and the last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if empty")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(pack_once(options.one)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = [measure(Path(folder), num_images) for num_images in options.sizes]
    for line in found:
        sys.stdout.write(json.dumps(line) + "\n")
    growth = (found[-1]["peak_mib"] - found[0]["peak_mib"]) * 2**20
    num_more = options.sizes[-1] - options.sizes[0]
    if num_more:
        sys.stdout.write(f"bytes an image: {growth / num_more:.0f}\n")


def measure(folder: Path, num_images: int) -> dict[str, Any]:
    """Peak memory, processor seconds and a digest of the data set."""
    write_inputs(folder, num_images)
    command = [sys.executable, __file__, "--one", str(folder)]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    for path in folder.iterdir():
        shutil.rmtree(path)
    return {"images": num_images, **json.loads(done.stdout)}


def pack_once(folder: Path) -> dict[str, Any]:
    """Run the step in this process."""
    inputs = {name: folder / name for name in ("captions", "images", "quarantines")}
    longgrit = folder / "longgrit"
    longgrit.mkdir()
    started = time.process_time()
    pack.function(**inputs, longgrit=longgrit, settings=PackSettings())
    cpu_s = time.process_time() - started
    digest = hashlib.sha256()
    for path in sorted(p for p in longgrit.rglob("*") if p.is_file() and "_work" not in p.parts):
        digest.update(str(path.relative_to(longgrit)).encode() + path.read_bytes())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cpu_s": round(cpu_s, 1),
        "peak_mib": round(peak_mib, 1),
        "sha256": digest.hexdigest()[:16],
    }


def write_inputs(folder: Path, num_images: int) -> None:
    """Captions and images in groups, as the steps before `pack` leave them."""
    generator = np.random.default_rng(0)
    jpegs = [_jpeg(number) for number in range(16)]
    for group, first in enumerate(range(0, num_images, GROUP_IMAGES)):
        numbers = range(first, min(first + GROUP_IMAGES, num_images))
        names = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]
        samples = ({"__key__": name, "jpg": jpegs[int(name, 16) % 16]} for name in names)
        write_shard(folder / "images" / f"{group:05d}" / "00000.tar", samples)
        write_rows(
            folder / "images" / f"{group:05d}" / "manifest.parquet",
            [],
            _images_schema(),
        )
        phashes = generator.integers(0, 2**64, len(names), dtype=np.uint64).tolist()
        rows = _rows(numbers, names, phashes)
        write_rows(folder / "captions" / f"{group:05d}" / "part-00000.parquet", rows, SCHEMA)
    write_quarantine(folder / "quarantines" / "select.parquet", [])


def _images_schema() -> Any:
    from data_contracts.images import SCHEMA as IMAGES

    return IMAGES


def _jpeg(number: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 48), (16 * number, 90, 120)).save(file, "JPEG")
    return file.getvalue()


def _rows(numbers: Sequence[int], names: Sequence[str], phashes: Sequence[int]) -> Iterator[Row]:
    from pixclip.masks import box_mask, encode_mask

    mask = box_mask((4, 4, 40, 40), 48, 64)
    counts = encode_mask(mask).counts
    for number, name, phash in zip(numbers, names, phashes, strict=True):
        for index in range(2):
            yield {
                "region_id": f"{number}-{index:02d}",
                "record_id": str(number),
                "url": f"https://pictures.example/{number:09d}.jpg",
                "image_caption": CAPTION,
                "phrase": "a small red thing",
                "score": 0.9,
                "split": "benchmark" if number % 100 == 0 else "",
                "subset": "",
                "image_sha256": name,
                "image_shard": "00000.tar",
                "image_width_px": 64,
                "image_height_px": 48,
                "image_phash": f"{phash:016x}",
                "box_xyxy": [4.0, 4.0, 40.0, 40.0],
                "mask_counts": counts,
                "mask_size": [48, 64],
                "mask_area_px": int(mask.sum()),
                "mask_source": "box",
                "mask_score": None,
                "object_caption": CAPTION,
                "context_caption": "on the left of the picture",
                "long_caption": f"{CAPTION}, number {number}, beside nothing else that is named",
                "short_caption": CAPTION,
                "verdict": "accepted",
                "verdict_reason": "consistent",
                "provenance": "{}",
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "cost_usd": 0.0,
            }


if __name__ == "__main__":
    main()
