"""`text_embeddings`: the index of cached text embeddings, one row a distinct caption.

The vectors are in `00000.safetensors`, `00001.safetensors` … beside `index.parquet`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.engine.columns import SHA256, failing_if_nan, numbers
from data_contracts.engine.rules import between, holds, matches
from data_contracts.engine.tables import AddColumns, Columns

KEY = "caption_hash"
SCHEMA = pa.schema(
    [
        pa.field("caption_hash", pa.string(), nullable=False),  # sha256 of the NFC text, hex
        pa.field("part", pa.int32(), nullable=False),  # number of the safetensors file
        pa.field("row", pa.int32(), nullable=False),  # row of its tensor
        pa.field("num_tokens", pa.int32(), nullable=False),  # embedded, without markers
        pa.field("is_truncated", pa.bool_(), nullable=False),
        pa.field("norm", pa.float32(), nullable=False),  # length of the vector
    ]
)
BUDGET = 0.0  # a caption without its vector would stop the training
HEADER_BYTES = 8
RULES = {
    "caption_hash_well_formed": matches("caption_hash", SHA256),
    "vector_is_there": holds("vector_is_there"),
    "vector_not_zero": between("vector_length", above=0),
    "has_a_token": between("num_tokens", 1),
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: a vector's length, of which NaN must not pass for missing."""
    norms = numbers(chunk, "norm")
    return {"vector_length": failing_if_nan(np.where(np.isinf(norms), np.nan, norms), -1.0)}


def survey(tables: Sequence[Path]) -> AddColumns:
    """Read the number of rows of every part beside the index."""
    counts: dict[int, int] = {}
    for table in tables:
        for path in table.parent.glob("*.safetensors"):
            counts[int(path.stem)] = _num_vectors(path)

    def add(chunk: pa.Table) -> Columns:
        parts = chunk["part"].fill_null(-1).to_numpy()
        rows = chunk["row"].fill_null(-1).to_numpy()
        known = {part: counts.get(part, 0) for part in set(parts.tolist())}
        limits = np.array([known[part] for part in parts.tolist()], dtype=np.int64)
        return {"vector_is_there": (rows >= 0) & (rows < limits)}

    return add


def _num_vectors(path: Path) -> int:
    """The rows of a part's tensor, from the header (https://github.com/huggingface/safetensors)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        header = json.loads(file.read(length))
    return int(header["embeddings"]["shape"][0])
