"""Embed the captions of one part of the cache; what was embedded is found again by its hash.

A vector is decided by its caption, the text tower and the number format. Unfinished work is kept
in a folder of tower and format, in files named by the captions they hold, so that it serves under
other settings and for another data set too.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.kernel.digests import file_sha256
from components.kernel.drafts import remove
from components.kernel.errors import InputError
from components.kernel.files import link_or_copy, write_whole, written_whole
from components.kernel.tables import Row, open_writer, write_rows
from data_contracts.text_embeddings import SCHEMA
from pixclip.json_files import JsonError, read_json_object
from pixclip.text.embeddings import INDEX_NAME, part_name, read_vectors, write_vectors
from pixclip.text.encoder import TextEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A file of vectors and one with the row of each: whole if its mark says so."""

    folder: Path
    key: str  # of the captions

    @property
    def vectors(self) -> Path:
        """The vectors, in the order of the captions' hashes."""
        return self.folder / f"{self.key}.safetensors"

    @property
    def rows(self) -> Path:
        """The rows of the index, without the number of a part."""
        return self.folder / f"{self.key}.parquet"

    @property
    def mark(self) -> Path:
        """The digests of both, written last."""
        return self.folder / f"{self.key}.json"

    def is_whole(self) -> bool:
        """Whether both files are there as they were written; tells of those that are damaged."""
        if not self.mark.exists():
            return False
        try:
            digests = read_json_object(self.mark)
            if digests == self._digests():
                return True
        except (JsonError, OSError):
            pass
        log.warning("%s is damaged and is made again", self.vectors)
        return False

    def write(self, pooled_nE: Tensor, rows: Iterable[Row]) -> None:
        """Write both files, then the mark."""
        write_vectors(self.vectors, pooled_nE)
        write_rows(self.rows, rows, SCHEMA)
        write_whole(self.mark, json.dumps(self._digests()))

    def _digests(self) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in (self.vectors, self.rows)}


def embed_part(
    encoder: TextEncoder,
    captions: Mapping[str, str],
    folder: Path,
    on_pass: Callable[[int], object],
) -> Part:
    """The vectors of captions (hash -> text), made as far as the folder has none of them.

    Raises:
        InputError: a caption has no token.
    """
    part = Part(folder, hashlib.sha256("\n".join(captions).encode()).hexdigest()[:32])
    if part.is_whole():
        on_pass(len(captions))
        return part
    folder.mkdir(parents=True, exist_ok=True)
    known = dict(_known(folder, captions))
    new = {key: text for key, text in captions.items() if key not in known}
    on_pass(len(known))
    known |= _embed(encoder, new, on_pass)
    empty_0E = torch.empty(0, encoder.config.embed_dim)
    pooled_nE = torch.stack([known[key][0] for key in captions]) if captions else empty_0E
    rows = ({**known[key][1], "row": row} for row, key in enumerate(captions))
    part.write(pooled_nE, rows)
    return part


Known = tuple[Tensor, Row]  # a caption's vector and its row of the index


def _embed(
    encoder: TextEncoder, captions: Mapping[str, str], on_pass: Callable[[int], object]
) -> dict[str, Known]:
    try:
        tokenized = encoder.tokenize(list(captions.values()))
    except ValueError as error:
        raise InputError(f"a caption of the data set cannot be embedded: {error}") from None
    pooled_nE = encoder.encode_tokens(tokenized, on_pass)
    norms = pooled_nE.norm(dim=1).tolist()
    return {
        key: (
            vector_E,
            {
                "caption_hash": key,
                "part": 0,
                "row": 0,
                "num_tokens": caption.stop - caption.start,
                "is_truncated": caption.is_truncated,
                "norm": norm,
            },
        )
        for key, vector_E, caption, norm in zip(captions, pooled_nE, tokenized, norms, strict=True)
    }


def _known(folder: Path, captions: Mapping[str, str]) -> Iterator[tuple[str, Known]]:
    """What other parts in the folder hold of these captions."""
    for mark in sorted(folder.glob("*.json")):
        part = Part(folder, mark.stem)
        if _may_hold(part.rows, captions) and part.is_whole():
            vectors_nE = read_vectors(part.vectors).float()
            for row in pq.read_table(part.rows, schema=SCHEMA).to_pylist():
                if row["caption_hash"] in captions:
                    yield row["caption_hash"], (vectors_nE[row["row"]], row)


def _may_hold(rows: Path, captions: Mapping[str, str]) -> bool:
    """Whether a part's range of hashes, which are in order, overlaps that of captions."""
    try:
        with pq.ParquetFile(rows) as file:
            groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    except (pa.ArrowException, OSError):
        return False
    hashes = list(captions)
    column = SCHEMA.get_field_index("caption_hash")
    ranges = [group.column(column).statistics for group in groups if group.num_rows]
    return bool(hashes and ranges) and not (
        ranges[0].min > hashes[-1] or ranges[-1].max < hashes[0]
    )


def join_parts(parts: list[Part], folder: Path) -> dict[str, Any]:
    """Bring the parts' vectors and the index of all into the artifact; counts what is in it."""
    totals = {"num_captions": 0, "num_tokens": 0, "num_truncated": 0}
    with (
        written_whole(folder / INDEX_NAME) as partial,
        open_writer(partial, SCHEMA) as writer,
    ):
        for number, part in enumerate(parts):
            table: pa.Table = pq.read_table(part.rows, schema=SCHEMA)
            place = SCHEMA.get_field_index("part")
            numbers = pa.array([number] * table.num_rows, SCHEMA.field("part").type)
            writer.write_table(table.set_column(place, SCHEMA.field("part"), numbers))
            remove(folder / part_name(number))
            link_or_copy(str(part.vectors), str(folder / part_name(number)))
            totals["num_captions"] += table.num_rows
            totals["num_tokens"] += pc.sum(table["num_tokens"]).as_py() or 0
            totals["num_truncated"] += pc.sum(table["is_truncated"]).as_py() or 0
    return totals
