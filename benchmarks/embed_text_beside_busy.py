"""`embed_text` alone and beside other work, with threads that sleep while they wait and that spin.

    python benchmarks/embed_text_beside_busy.py --dataset runs/demo/longgrit \
        --text-tower runs/demo/text_tower --num-captions 64

Each way runs in a process of its own, on all cores; the other work is a busy loop for each core.
Seconds are those of embedding alone, without imports and opening the tower.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from components.core.process import WAITING_THREADS

REPOSITORY = Path(__file__).resolve().parents[1]
EMBED = """
import json, sys, time
import pyarrow.parquet as pq
from pathlib import Path
from pixclip.text.encoder import TextEncoder
dataset, tower, num = sys.argv[1:]
encoder = TextEncoder.open(Path(tower), device="cpu")
captions = pq.read_table(Path(dataset) / "manifest.parquet")["long_caption"].to_pylist()
encoder.encode(captions[:2])
wall, processor = time.monotonic(), time.process_time()
encoder.encode(captions[: int(num)])
print(json.dumps([time.monotonic() - wall, time.process_time() - processor]))
"""


def main() -> None:
    """Measure the four cases and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--text-tower", type=Path, required=True)
    parser.add_argument("--num-captions", type=int, default=64)
    options = parser.parse_args()
    for is_busy in (False, True):
        spinning, sleeping = (measure(options, is_busy, is_sleeping) for is_sleeping in (0, 1))
        where = "beside busy loops" if is_busy else "alone"
        for name, (wall_s, processor_s) in {"spin": spinning, "sleep": sleeping}.items():
            sys.stdout.write(f"{where:18} {name:6} {wall_s:7.1f} s {processor_s:7.1f} s of cores\n")
        ratios = [own / theirs for own, theirs in zip(spinning, sleeping, strict=True)]
        sys.stdout.write(f"{where:18} ratio  {ratios[0]:7.1f}   {ratios[1]:7.1f}\n")


def measure(options: argparse.Namespace, is_busy: bool, is_sleeping: bool) -> tuple[float, float]:
    """Wall time and processor time of embedding, in seconds."""
    taken = {*WAITING_THREADS, "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in taken}
    environment["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'model'}"
    num_loops = len(os.sched_getaffinity(0)) if is_busy else 0
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_loops)]
    try:
        places = [str(options.dataset), str(options.text_tower), str(options.num_captions)]
        done = subprocess.run(
            [sys.executable, "-c", EMBED, *places],
            env={**environment, **(WAITING_THREADS if is_sleeping else {})},
            stdout=subprocess.PIPE,
            check=True,
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    wall_s, processor_s = json.loads(done.stdout)
    return wall_s, processor_s


if __name__ == "__main__":
    main()
