"""Ingest beside img2dataset 1.47: the same URLs, the same server, the same number of downloads.

    .venv/bin/python benchmarks/ingest_vs_img2dataset.py [--photographs FOLDER] [--rounds 3]

A server in a process of its own serves photographs of many sizes and, in between, what the web
is like: missing, slow, cut off, huge, pages. Both tools run in fresh processes, in turns; before
each run comes one of two URLs, whose time (imports, pools) is taken off. img2dataset gets an
environment of its own, made at the first run. Neither resizes; both decode every image. Only
ingest computes a perceptual hash, and only it refuses images that a decoder had to patch.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.tables import write_rows
from data_contracts.records import SCHEMA

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-img2dataset"
SERVER = Path(__file__).with_name("ingest_server.py")
NUM_URLS, CONCURRENCY, PROCESSES, RETRIES, TIMEOUT_S = 2000, 64, 2, 2, 10

OURS = """
import json, resource, sys, time
from pathlib import Path
from components.data.ingest.settings import IngestSettings
from components.data.ingest.step import ingest_images
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
started_s = time.monotonic()
metrics = ingest_images(folder / "records", folder / "images", folder / "q.parquet",
                        IngestSettings(**settings))
print(metrics["urls_ok"])
"""
THEIRS = """
import json, sys
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    wall_s: float
    cpu_s: float  # of the process and its children
    num_ok: int

    def without(self, start: "Cost") -> "Cost":
        """The cost of the work alone."""
        return Cost(self.wall_s - start.wall_s, self.cpu_s - start.cpu_s, self.num_ok)


def make_environment() -> Path:
    """The Python of an environment with img2dataset."""
    python = VENV / "bin" / "python"
    if not (VENV / "done").exists():
        shutil.rmtree(VENV, ignore_errors=True)
        uv = shutil.which("uv")
        if uv:
            run_tool([uv, "venv", "--python", sys.executable, str(VENV)])
            install = [uv, "pip", "install", "--python", str(python)]
        else:
            run_tool([sys.executable, "-m", "venv", str(VENV)])
            install = [str(python), "-m", "pip", "install", "-q"]
        # Its albumentations asks for OpenCV with a window system; setuptools for pkg_resources.
        run_tool([*install, "img2dataset==1.47.0", "setuptools<81"])
        (VENV / "done").touch()
    return python


def run_tool(command: list[str]) -> None:
    subprocess.run(command, check=True)


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    before, started = os.times(), os.times().elapsed
    with (folder / "log.txt").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, check=False).returncode
    after = os.times()
    if code:
        raise SystemExit((folder / "log.txt").read_text(encoding="utf-8")[-3000:])
    cpu_s = after.children_user + after.children_system
    return after.elapsed - started, cpu_s - before.children_user - before.children_system


def run_ours(urls: list[str], folder: Path) -> Cost:
    rows = (
        {"region_id": f"{n}-00", "record_id": str(n), "url": url, "image_caption": "", "phrase": "",
         "box_norm": [0, 0, 1, 1], "score": 1.0, "split": "", "subset": ""}
        for n, url in enumerate(urls)
    )  # fmt: skip
    write_rows(folder / "records" / "part-00000.parquet", rows, SCHEMA)
    settings = {
        "allowed_hosts": ["127.0.0.1"],
        "concurrency": CONCURRENCY,
        "concurrency_per_host": CONCURRENCY,
        "decode_threads": PROCESSES,
        "retries": RETRIES,
        "read_timeout_s": TIMEOUT_S,
        "min_success_rate": 0,
        "min_side_px": 1,
    }
    command = [sys.executable, "-c", OURS, str(folder), json.dumps(settings)]
    wall_s, cpu_s = measure(command, folder)
    manifest = pq.read_table(folder / "images" / "manifest.parquet")
    return Cost(wall_s, cpu_s, manifest["status"].to_pylist().count("ok"))


def run_theirs(urls: list[str], folder: Path, python: Path) -> Cost:
    pq.write_table(pa.table({"url": urls}), folder / "urls.parquet")
    (folder / "run.py").write_text(THEIRS, encoding="utf-8")
    options = {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "output_format": "webdataset",
        "output_folder": str(folder / "images"),
        "processes_count": PROCESSES,
        "thread_count": CONCURRENCY // PROCESSES,
        "number_sample_per_shard": 1000,
        "resize_mode": "no",
        "skip_reencode": True,
        "compute_hash": "sha256",
        "retries": RETRIES,
        "timeout": TIMEOUT_S,
    }
    wall_s, cpu_s = measure([str(python), str(folder / "run.py"), json.dumps(options)], folder)
    tables = [
        pq.read_table(path, columns=["status"]) for path in (folder / "images").glob("*.parquet")
    ]
    num_ok = sum(table["status"].to_pylist().count("success") for table in tables)
    return Cost(wall_s, cpu_s, num_ok)


def in_fresh_folder(tool, urls: list[str]) -> Cost:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        return tool(urls, Path(folder))


def report(name: str, costs: list[Cost]) -> float:
    """Print a tool's figures; gives its images per CPU second."""
    wall_s = statistics.median(cost.wall_s for cost in costs)
    cpu_s = statistics.median(cost.cpu_s for cost in costs)
    num_ok = costs[0].num_ok
    print(
        f"{name:12} {num_ok:5} of {NUM_URLS} ok  {wall_s:6.1f} s wall  {cpu_s:6.1f} s CPU  "
        f"{num_ok / wall_s:6.0f} images/s  {num_ok / cpu_s:6.0f} images/s per core"
    )
    return num_ok / cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", default="", help="folder of JPEG photographs")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    python = make_environment()
    tools = {
        "ingest": run_ours,
        "img2dataset": lambda urls, folder: run_theirs(urls, folder, python),
    }
    command = [sys.executable, str(SERVER), str(NUM_URLS), arguments.photographs]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, encoding="utf-8", errors="replace"
    ) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(NUM_URLS)]
        try:
            costs: dict[str, list[Cost]] = {name: [] for name in tools}
            for _ in range(arguments.rounds):
                for name, tool in tools.items():
                    start, whole = (in_fresh_folder(tool, part) for part in (urls[:2], urls))
                    print(name, "start", start, "whole", whole, flush=True)
                    costs[name].append(whole.without(start))
        finally:
            server.kill()
    ours, theirs = (report(name, costs[name]) for name in tools)
    print(f"ingest does {ours / theirs:.2f} times as many images per core second as img2dataset")


if __name__ == "__main__":
    main()
