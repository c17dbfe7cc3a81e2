"""All captions of a data set, sorted on disk by the part of the cache they go to.

A part holds a range of hashes, so that equal captions meet in one part and the index of all parts
in turn is in the order of hashes. Memory is bounded by a part and a chunk of the manifest.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from components.kernel.digests import sha256_text
from components.kernel.errors import InputError
from components.kernel.files import write_whole
from components.kernel.progress import progress
from components.kernel.receipts import input_digest
from components.kernel.tables import count_rows, read_batches
from pixclip.data.errors import DataError
from pixclip.data.shards import Shards
from pixclip.data.store import Store
from pixclip.json_files import brief
from pixclip.text.embeddings import caption_hash

MANIFEST = "manifest.parquet"
COLUMNS = ("long_caption", "short_caption")
TEXTS_A_REGION = 3  # long, short, and at most one of its image
DONE_NAME = "done"


def sort_captions(work: Path, longgrit: Path, captions_per_part: int) -> "SortedCaptions":
    """The captions of a data set, sorted once; sortings of other data or sizes are removed."""
    decisive = f"{input_digest('longgrit', longgrit)} {captions_per_part}"
    folder = work / f"captions-{sha256_text(decisive)[:16]}"
    for other in work.glob("captions-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    captions = SortedCaptions(folder, longgrit, captions_per_part)
    captions.sort()
    return captions


class SortedCaptions:
    """The distinct captions of a data set, part by part."""

    def __init__(self, folder: Path, longgrit: Path, captions_per_part: int) -> None:
        self._folder = folder
        with _manifest_told(longgrit / MANIFEST):
            most = TEXTS_A_REGION * count_rows(longgrit / MANIFEST)
        self.num_parts = max(1, -(-most // captions_per_part))
        self._longgrit = longgrit

    def sort(self) -> None:
        """Write every caption to its part's file; a finished sorting is not repeated."""
        if (self._folder / DONE_NAME).exists():
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        num_texts = 0
        with progress("embed_text: sort captions", unit="caption") as bar:
            for texts in _chunks(self._longgrit):
                distinct = sorted(set(texts))
                self._append(distinct)
                num_texts += len(distinct)
                bar.update(len(texts))
        write_whole(self._folder / DONE_NAME, str(num_texts))

    @property
    def num_texts(self) -> int:
        """The number of captions after sorting; those that chunks share count again."""
        return int((self._folder / DONE_NAME).read_text(encoding="utf-8"))

    def part(self, number: int) -> dict[str, str]:
        """The captions of a part by their hashes, in the order of hashes."""
        path = self._path(number)
        if not path.exists():
            return {}
        with path.open(encoding="utf-8") as file:
            found = dict(json.loads(line) for line in file)
        return dict(sorted(found.items()))

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
        return self._folder / f"{part:05d}.jsonl"


def _chunks(longgrit: Path) -> Iterator[list[str]]:
    """Lists of captions: of regions from the manifest, of images from the shards.

    Raises:
        InputError: manifest or shard cannot be read, or a caption is missing; names the place.
    """
    manifest, names = longgrit / MANIFEST, set[str]()
    shards = Shards(Store(longgrit))
    with _manifest_told(manifest):
        for batch in read_batches(manifest, ["region_id", *COLUMNS, "shard"]):
            for column in COLUMNS:
                yield _texts_of(batch, column, manifest)
            names |= set(_texts_of(batch, "shard", manifest))
    try:
        for name in sorted(names):
            samples = shards.samples(name, with_images=False)
            yield [sample.caption for sample in samples if sample.caption.strip()]
    except DataError as error:
        raise InputError(f"{longgrit}: {error}; make the data set anew by `pixclip pack`") from None


@contextmanager
def _manifest_told(manifest: Path) -> Iterator[None]:
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
