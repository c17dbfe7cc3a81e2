"""Embed the captions of one part of the cache; a part that is there is whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.kernel.tables import write_rows
from data_contracts.text_embeddings import SCHEMA
from pixclip.text.embeddings import INDEX_NAME, write_part
from pixclip.text.encoder import TextEncoder


def embed_part(
    encoder: TextEncoder,
    captions: Mapping[str, str],
    number: int,
    folder: Path,
    index: Path,
    on_pass: Callable[[int], object],
) -> None:
    """Write the vectors of captions (hash -> text), then the rows of the index they get."""
    if index.exists():
        on_pass(len(captions))
        return
    tokenized = encoder.tokenize(list(captions.values()))
    pooled_nE = encoder.encode_tokens(tokenized, on_pass)
    write_part(folder, number, pooled_nE)
    norms = pooled_nE.norm(dim=1).tolist()
    rows = (
        {
            "caption_hash": key,
            "part": number,
            "row": row,
            "num_tokens": caption.stop - caption.start,
            "is_truncated": caption.is_truncated,
            "norm": norm,
        }
        for row, (key, caption, norm) in enumerate(zip(captions, tokenized, norms, strict=True))
    )
    write_rows(index, rows, SCHEMA)


def join_index(parts: list[Path], folder: Path) -> dict[str, Any]:
    """Join the parts' rows to the index and count what is in it."""
    partial = folder / f".{INDEX_NAME}.partial"
    totals = {"num_captions": 0, "num_tokens": 0, "num_truncated": 0}
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for part in parts:
            table: pa.Table = pq.read_table(part, schema=SCHEMA)
            writer.write_table(table)
            totals["num_captions"] += table.num_rows
            totals["num_tokens"] += pc.sum(table["num_tokens"]).as_py() or 0
            totals["num_truncated"] += pc.sum(table["is_truncated"]).as_py() or 0
    partial.replace(folder / INDEX_NAME)
    return totals
