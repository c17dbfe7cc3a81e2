"""Sort caption rows by the shard they go to, on disk: the rows of a whole data set do not fit."""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.kernel.progress import progress
from components.kernel.tables import Row, read_batches
from components.pack.plan import ShardPlan

DONE_NAME = "done"


def fill_buckets(captions: Path, plan: Sequence[ShardPlan], folder: Path) -> None:
    """Write every caption row to its shard's bucket; whole buckets of a killed run are kept."""
    if (folder / DONE_NAME).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shard_of = {image_id: shard.name for shard in plan for image_id in shard.image_ids}
    with progress("pack: sort regions by shard") as bar:
        for batch in read_batches(captions):
            _append(batch.to_pylist(), shard_of, folder)
            bar.update(batch.num_rows)
    (folder / DONE_NAME).touch()


def _append(rows: Sequence[Row], shard_of: Mapping[str, str], folder: Path) -> None:
    lines: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        lines[shard_of[row["image_sha256"]]].append(json.dumps(row) + "\n")
    for shard, texts in lines.items():
        with _bucket_path(folder, shard).open("a", encoding="utf-8") as file:
            file.writelines(texts)


def read_bucket(folder: Path, shard: ShardPlan) -> dict[str, list[Row]]:
    """The rows of a shard by image, each image's regions in their order."""
    images: dict[str, list[Row]] = {image_id: [] for image_id in shard.image_ids}
    with _bucket_path(folder, shard.name).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            images[row["image_sha256"]].append(row)
    for rows in images.values():
        rows.sort(key=lambda row: str(row["region_id"]))
    return images


def _bucket_path(folder: Path, shard: str) -> Path:
    return folder / f"{shard.replace('/', '-')}.jsonl"
