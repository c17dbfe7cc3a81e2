"""Pairs of captions of the data set: those to train on, and some to measure on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.kernel.errors import InputError
from components.kernel.files import written_whole
from components.kernel.tables import open_writer, read_batches
from data_contracts.tables import hash_keys

MANIFEST = "manifest.parquet"
SCHEMA = pa.schema([pa.field("short_caption", pa.string()), pa.field("long_caption", pa.string())])


def draw_train_pairs(longgrit: Path, path: Path, max_pairs: int, seed: int) -> int:
    """Write the pairs to train on by rename; about `max_pairs` drawn by hash if there are more.

    Raises:
        InputError: the data set has no region in `train`.
    """
    num_train = sum(batch.num_rows for batch in _split(longgrit, "train"))
    if not num_train:
        raise InputError(f"{longgrit} has no region in the split train to adapt the text tower to")
    share = min(1.0, max_pairs / num_train)
    num_pairs = 0
    with written_whole(path) as partial, open_writer(partial, SCHEMA) as writer:
        for batch in _split(longgrit, "train"):
            drawn = _draw(pa.Table.from_batches([batch]), share, seed).select(SCHEMA.names)
            writer.write_table(drawn.cast(SCHEMA))
            num_pairs += drawn.num_rows
    return num_pairs


def eval_pairs(longgrit: Path, max_pairs: int) -> tuple[list[str], list[str]]:
    """Short and long captions of the first regions of `val`."""
    shorts: list[str] = []
    longs: list[str] = []
    for batch in _split(longgrit, "val"):
        shorts += batch["short_caption"].to_pylist()
        longs += batch["long_caption"].to_pylist()
        if len(shorts) >= max_pairs:
            break
    return shorts[:max_pairs], longs[:max_pairs]


def _split(longgrit: Path, split: str) -> Iterator[pa.RecordBatch]:
    columns = ["region_id", "split", *SCHEMA.names]
    for batch in read_batches(longgrit / MANIFEST, columns):
        yield batch.filter(pc.equal(batch["split"], split))


def _draw(table: pa.Table, share: float, seed: int) -> pa.Table:
    if share == 1.0 or not table.num_rows:
        return table
    keys = [f"{seed}:{key}" for key in table["region_id"].to_pylist()]
    hashes = hash_keys(pa.table({"region_id": keys}), "region_id")
    return table.filter(pa.array(hashes < np.uint64(share * (2**64 - 1))))
