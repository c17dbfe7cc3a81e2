"""Peak memory and speed of `select`, with its contracts, on a synthetic GRIT Parquet.

    python benchmarks/select_memory.py --num-records 1000000 [--folder FOLDER]
    python benchmarks/select_memory.py --num-records 200000 600000 --group-records 50000

The file has one row group of all its rows, as pandas writes it: the worst case for memory, since
Parquet keeps the distinct texts of the row group that is read. With several numbers of records, the
bytes that one more record takes are printed; with row groups of one size, they are of what `select`
and its contracts hold of a whole source.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.grit import REGIONS, SCHEMA

ROOT = Path(__file__).parents[1]
MEASURED = """
import json, sys
from pathlib import Path
from components.core.run import run_step
from components.core.step import load_step
grit, records, quarantine = map(Path, sys.argv[1:])
outputs = {"records": records, "quarantine": quarantine}
receipt = run_step(load_step("select"), {"grit": grit}, outputs, {})
print(json.dumps(dict(receipt.metrics)))
"""
WORDS = ("a", "red", "dog", "on", "street", "with", "woman", "at", "sunset", "photo", "and", "sky")


def main() -> None:
    """Write the file, run the step in a process of its own and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-records", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--group-records", type=int, default=0, help="of a row group; 0: all")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if empty")
    options = parser.parse_args()
    found = []
    for num_records in options.num_records:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / "grit" / "coyo_0_snappy.parquet"
            write_synthetic_grit(path, num_records, options.group_records or num_records)
            num_mib = path.stat().st_size / 2**20
            sys.stdout.write(f"source: {num_records} records, {num_mib:.0f} MiB\n")
            found.append(measure(path.parent, Path(folder)))
        sys.stdout.write(json.dumps(found[-1], indent=1) + "\n")
    num_more = options.num_records[-1] - options.num_records[0]
    if num_more:
        growth = (found[-1]["peak_mib"] - found[0]["peak_mib"]) * 2**20
        sys.stdout.write(f"bytes a record: {growth / num_more:.0f}\n")


def measure(grit: Path, folder: Path) -> dict[str, float]:
    """Seconds, peak resident memory and records a second of processor time of `select`."""
    command = [sys.executable, "-c", MEASURED, str(grit), str(folder / "records")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(
        [*command, str(folder / "select.parquet")],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "model")))},
    )
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = json.loads(done.stdout.splitlines()[-1])
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_s, 1),
        "peak_mib": round(after.ru_maxrss / 1024),
        "records_per_cpu_second": round(metrics["records_in"] / cpu_s),
        **{name: metrics[name] for name in ("regions_in", "regions_out", "regions_quarantined")},
    }


def write_synthetic_grit(
    path: Path, num_records: int, group_records: int, chunk: int = 50_000
) -> None:
    """A GRIT file with captions of about 70 characters, two regions a record and some faults."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
        parts = [
            synthetic_records(generator, first, min(chunk, num_records - first))
            for first in range(0, num_records, chunk)
        ]
        writer.write_table(pa.concat_tables(parts), row_group_size=group_records)


def synthetic_records(generator: np.random.Generator, first: int, num: int) -> pa.Table:
    """Rows in which about one in ten regions breaks a rule, and one URL in 200 is repeated."""
    ids = np.arange(first, first + num)
    addresses = np.where(generator.random(num) < 0.005, ids // 2, ids)
    words = generator.choice(WORDS, size=(num, 14))
    regions = synthetic_regions(generator, num)
    similarity = generator.normal(0.27, 0.06, num)
    return pa.table(
        {
            "key": [f"{number:09d}" for number in ids],
            "clip_similarity_vitb32": similarity,
            "clip_similarity_vitl14": similarity - 0.03,
            "id": ids,
            "url": [f"https://images.example/{n % 977}/{n:012d}.jpg" for n in addresses],
            "caption": [" ".join(row) for row in words],
            "width": generator.integers(180, 2000, num),
            "height": generator.integers(180, 2000, num),
            "noun_chunks": regions,
            "ref_exps": regions,
        },
        schema=SCHEMA,
    )


def synthetic_regions(generator: np.random.Generator, num_records: int) -> pa.Array:
    """Two regions of seven numbers for every record."""
    num = 2 * num_records
    start = generator.integers(0, 20, num)
    corner, side = generator.random((num, 2)) * 0.6, 0.02 + generator.random((num, 2)) * 0.38
    score = 0.64 + generator.random(num) * 0.34
    values = np.column_stack([start, start + 12, corner, corner + side, score])
    inner = pa.ListArray.from_arrays(np.arange(0, 7 * num + 1, 7), pa.array(values.ravel()))
    return pa.ListArray.from_arrays(np.arange(0, num + 1, 2), inner).cast(REGIONS)


if __name__ == "__main__":
    main()
