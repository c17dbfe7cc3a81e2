"""Memory and time of `import_finehard` an image: the step itself, without its contracts, from tars.

    python benchmarks/finehard_memory.py [--sizes 20000 60000] [--folder FOLDER]

Every size runs in a process of its own. What grows with the data set is the difference of two
peaks over the difference of their images. Images are of 128 x 96 pixels, so the time is that of
everything but decoding. Beside it stands `json.loads` of the same annotations, all at once.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.data.import_finehard.settings import ImportFineHardSettings
from components.data.import_finehard.step import import_finehard

TAR_IMAGES, FILE_ENTRIES = 10_000, 100_000
LONG = " ".join(["a wide view of a street with a red car and a tall tree in front of it"] * 10)
REGION = {
    "bbox": [0.1, 0.2, 0.6, 0.8, 0.71],
    "short_expr": "a red car with a white roof",
    "long_expr": "a red car with a white roof that stands in front of a tall tree",
    "flag_short_neg": 1,
    "short_expr_negs": {str(k): f"a car of colour {k} with a white roof" for k in range(10)},
}


def main() -> None:
    """Print a line for each size, and the bytes an image between the first and the last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if empty")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(import_once(options.one)))
        return
    if options.load:
        sys.stdout.write(json.dumps(load_once(options.load)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = [measure(Path(folder), num_images) for num_images in options.sizes]
    for line in found:
        sys.stdout.write(json.dumps(line) + "\n")
    num_more = options.sizes[-1] - options.sizes[0]
    for name in ("peak_mib", "json_load_peak_mib"):
        growth = (found[-1][name] - found[0][name]) * 2**20
        sys.stdout.write(f"{name}: {growth / max(num_more, 1):.0f} bytes an image\n")


def measure(folder: Path, num_images: int) -> dict[str, Any]:
    """Peak memory and images a second."""
    write_source(folder / "source", num_images)
    line: dict[str, Any] = {"num_images": num_images}
    for option in ("--one", "--load"):
        command = [sys.executable, __file__, option, str(folder)]
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        line |= json.loads(done.stdout)
    shutil.rmtree(folder / "source")
    return line


def import_once(folder: Path) -> dict[str, float]:
    """Run the step in this process."""
    outputs = [folder / "run" / name for name in ("captions", "images", "quarantine.parquet")]
    source = folder / "source"
    settings = ImportFineHardSettings(
        annotations=str(source / "jsonfiles"), images=str(source / "images"), min_side_px=64
    )
    start = time.monotonic()
    metrics = import_finehard.function(*outputs, settings)
    seconds = time.monotonic() - start
    shutil.rmtree(folder / "run")
    return {"peak_mib": peak_mib(), "images_per_s": round(metrics["images_out"] / seconds, 1)}


def load_once(folder: Path) -> dict[str, float]:
    """All annotations in memory at once."""
    entries = []
    for path in sorted((folder / "source/jsonfiles").iterdir()):
        entries += json.loads(path.read_text(encoding="utf-8"))
    return {"json_load_peak_mib": peak_mib() + 0 * len(entries)}


def peak_mib() -> float:
    """The most memory that this program has used; getrusage would count the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1024, 1)


def write_source(folder: Path, num_images: int) -> None:
    """Annotations and tars; every image has bytes of its own."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((128, 96)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    (folder / "jsonfiles").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for start in range(0, num_images, TAR_IMAGES):
        shard = f"coyo_image_0/{start // TAR_IMAGES:05d}"
        path = folder / "images" / f"{shard}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number in range(start, min(num_images, start + TAR_IMAGES)):
                content = jpeg[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + jpeg[2:]
                member = tarfile.TarInfo(f"{number:09d}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                entries.append(
                    {
                        "f_path": f"grit-20m/data-12m/{shard}/{number:09d}.jpg",
                        "caption": LONG,
                        "short_caption": "a street with a red car",
                        "bbox_info": [REGION] * 3,
                    }
                )
    for start in range(0, num_images, FILE_ENTRIES):
        path = folder / "jsonfiles" / f"results_{start // FILE_ENTRIES}.json"
        path.write_text(json.dumps(entries[start : start + FILE_ENTRIES]), encoding="utf-8")


if __name__ == "__main__":
    main()
