"""Embed the captions of one part of the cache; what was embedded is found again by its hash.

A vector is decided by its caption, the text tower and the number format. Unfinished work is kept
in a folder of tower and format, in files named by the captions they hold, so that it serves under
other settings and for another data set too.
"""

import hashlib
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.core.digests import file_sha256, sha256_text
from components.core.drafts import remove
from components.core.errors import InputError
from components.core.files import link_or_copy, write_whole, written_whole
from components.core.progress import progress
from components.core.receipts import input_digest
from components.core.tables import Row, count_rows, open_writer, read_batches, write_rows
from data_contracts.text_embeddings import SCHEMA
from pixclip.data.errors import DataError
from pixclip.data.layout import MANIFEST_NAME
from pixclip.data.shards import Shards
from pixclip.data.store import Store
from pixclip.json_files import JsonError, brief, read_json_object
from pixclip.text.embeddings import INDEX_NAME, caption_hash, part_name, read_vectors, write_vectors
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
        """Whether both files are there as they were written; warns of damaged ones."""
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


def key_of(captions: Iterable[str]) -> str:
    """The name of the part that holds captions of these hashes."""
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()[:32]


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
    part = Part(folder, key_of(captions))
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


COLUMNS = ("long_caption", "short_caption")
TEXTS_A_REGION = 3  # long, short, and at most one of its image; wrong ones come on top
DONE_NAME = "done"


# All captions of a data set, sorted on disk by the part of the cache they go to.
#
# A part holds a range of hashes, so that equal captions meet in one part and the index of all parts
# in turn is in the order of hashes. Memory is bounded by a part and a chunk of the manifest.


def sort_captions(work: Path, dataset: Path, captions_per_part: int) -> "SortedCaptions":
    """The captions of a data set, sorted once; sortings of other data or sizes are removed."""
    decisive = f"{input_digest('dataset', dataset)} {captions_per_part}"
    folder = work / f"captions-{sha256_text(decisive)[:16]}"
    for other in work.glob("captions-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    with _manifest_errors(dataset / MANIFEST_NAME):
        most = TEXTS_A_REGION * count_rows(dataset / MANIFEST_NAME)
    captions = SortedCaptions(folder, max(1, -(-most // captions_per_part)))
    captions.sort(dataset)
    return captions


class SortedCaptions:
    """The distinct captions of a data set, part by part."""

    def __init__(self, folder: Path, num_parts: int) -> None:
        self.folder, self.num_parts = folder, num_parts

    def sort(self, dataset: Path) -> None:
        """Write every caption to its part's file; a finished sorting is not repeated."""
        if (self.folder / DONE_NAME).exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        num_texts = 0
        with progress("embed_text: sort captions", unit="caption") as bar:
            for texts in _chunks(dataset):
                distinct = sorted(set(texts))
                self._append(distinct)
                num_texts += len(distinct)
                bar.update(len(texts))
        write_whole(self.folder / DONE_NAME, str(num_texts))

    @property
    def num_texts(self) -> int:
        """The number of captions after sorting; those that chunks share count again."""
        return int((self.folder / DONE_NAME).read_text(encoding="utf-8"))

    def part(self, number: int) -> dict[str, str]:
        """The captions of a part by their hashes, in the order of hashes."""
        path = self._path(number)
        if not path.exists():
            return {}
        with path.open(encoding="utf-8") as file:
            found = dict(json.loads(line) for line in file)
        return dict(sorted(found.items()))

    def keep_key(self, number: int, key: str) -> None:
        """Write down how a part that is embedded is named."""
        write_whole(self._path(number).with_suffix(".key"), key)

    def key(self, number: int) -> str:
        """The name of a part; empty if it was not embedded."""
        try:
            return self._path(number).with_suffix(".key").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _append(self, texts: Iterable[str]) -> None:
        lines: dict[int, list[str]] = defaultdict(list)
        for text in texts:
            key = caption_hash(text)
            part = int(key[:16], 16) * self.num_parts >> 64
            lines[part].append(json.dumps([key, text]) + "\n")
        for part, ready in lines.items():
            with self._path(part).open("a", encoding="utf-8") as file:
                file.writelines(ready)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:05d}.jsonl"


def _chunks(dataset: Path) -> Iterator[list[str]]:
    """Lists of captions: of regions from the manifest, of images and wrong ones from the shards.

    Raises:
        InputError: manifest or shard cannot be read, or a caption is missing; names the place.
    """
    manifest, names = dataset / MANIFEST_NAME, set[str]()
    shards = Shards(Store(dataset))
    with _manifest_errors(manifest):
        for batch in read_batches(manifest, ["region_id", *COLUMNS, "shard"]):
            for column in COLUMNS:
                yield _texts_of(batch, column, manifest)
            names |= set(_texts_of(batch, "shard", manifest))
    try:
        for name in sorted(names):
            yield [
                text
                for sample in shards.samples(name, with_images=False)
                for text in (
                    *filter(str.strip, [sample.caption]),
                    *(wrong for region in sample.regions for wrong in region.hard_negatives),
                )
            ]
    except DataError as error:
        raise InputError(f"{dataset}: {error}; make the data set anew by `pixclip pack`") from None


@contextmanager
def _manifest_errors(manifest: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError, OSError) as error:
        raise InputError(f"the manifest {manifest} cannot be read: {brief(error)}") from None


def _texts_of(batch: pa.RecordBatch, column: str, manifest: Path) -> list[str]:
    """A column of texts, none of them missing, blank or broken."""
    texts: list[str | None] = batch[column].cast(pa.string()).to_pylist()
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            region = batch["region_id"][row].as_py()
            raise InputError(f"{manifest}: the region {region} has no {column} to embed")
    return [text for text in texts if text is not None]
