"""Write the shards and the manifest; a shard of a killed run that is done is not written again."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.kernel.files import written_whole
from components.kernel.progress import progress
from components.kernel.shards import write_shard
from components.kernel.tables import WORK_FOLDER, Row, open_writer, write_rows
from components.pack.buckets import read_bucket
from components.pack.plan import ImageStore, ShardPlan
from components.pack.samples import manifest_row, sample_json
from data_contracts.longgrit import SCHEMA

MANIFEST_NAME = "manifest.parquet"


def write_shards(
    plan: Sequence[ShardPlan], store: ImageStore, buckets: Path, longgrit: Path
) -> None:
    """Write every shard of the plan that is missing."""
    with progress(
        "pack: write shards", total=sum(len(shard.image_ids) for shard in plan), unit="image"
    ) as bar:
        for shard in plan:
            if not _part_path(longgrit, shard).exists():
                rows = read_bucket(buckets, shard)
                write_shard(longgrit / shard.name, _samples(rows, store))
                # The part is written last: it says that the tar beside it is whole.
                _write_part(longgrit, shard, rows)
            bar.update(len(shard.image_ids))


def write_manifest(plan: Sequence[ShardPlan], longgrit: Path) -> int:
    """Join the shards' parts to the manifest and give the number of regions."""
    parts = (pq.read_table(_part_path(longgrit, shard), schema=SCHEMA) for shard in plan)
    return _write_tables(longgrit / MANIFEST_NAME, parts)


def _samples(images: Mapping[str, Sequence[Row]], store: ImageStore) -> Iterator[dict[str, Any]]:
    for image_id, rows in images.items():
        yield {"__key__": image_id, "jpg": store.read(image_id), "json": sample_json(rows)}


def _write_part(longgrit: Path, shard: ShardPlan, images: Mapping[str, Sequence[Row]]) -> None:
    rows = (manifest_row(row, shard) for regions in images.values() for row in regions)
    write_rows(_part_path(longgrit, shard), rows, SCHEMA)


def _part_path(longgrit: Path, shard: ShardPlan) -> Path:
    return longgrit / WORK_FOLDER / "parts" / f"{shard.split}-{shard.index:05d}.parquet"


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> int:
    num_rows = 0
    with written_whole(path) as partial, open_writer(partial, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
            num_rows += table.num_rows
    return num_rows
