"""A group of entries: a tar of images with its manifest, a table of rows, and what was dropped.

Whoever finds a group's report finds the whole group: it is written last.
"""

import itertools
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.core.counts import write_quarantine
from components.core.files import write_whole
from components.core.shards import write_shard
from components.core.tables import WORK_FOLDER, Row, part_name, read_rows, write_rows
from components.data.formats.finehard import FineImage
from components.data.import_finehard.records import Made
from data_contracts import images as images_contract
from data_contracts.contrasted import SCHEMA
from data_contracts.reasons import FineHardReason
from pixclip.data.layout import MANIFEST_NAME, shard_name

WINDOW = 64  # entries whose images are in memory together
SHARD = shard_name(0)
Numbered = tuple[int, FineImage]


@dataclass(frozen=True)
class GroupReport:
    """What a finished group adds to the step's metrics."""

    num_entries: int
    num_images: int
    num_rows: int
    num_negatives: int  # rows that have hard negatives
    reasons: dict[str, int]


class SeenImages:
    """The images so far, on disk: there are millions. The first entry that has one keeps it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS seen (image BLOB PRIMARY KEY, entry INTEGER) WITHOUT ROWID"
        )

    def first_with(self, sha256: str, entry: int) -> int:
        """The first entry that has the image: this one, or an earlier one."""
        image = bytes.fromhex(sha256)
        self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (image, entry))
        (first,) = self._database.execute(
            "SELECT entry FROM seen WHERE image = ?", (image,)
        ).fetchone()
        return int(first)

    def commit(self) -> None:
        """Keep what was seen, for a run that goes on."""
        self._database.commit()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


@dataclass(frozen=True)
class Group:
    """The files of a group."""

    captions: Path
    images: Path
    number: int

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.number:05d}"

    @property
    def report_path(self) -> Path:
        """The counts; there are some if the group is whole."""
        return self._work / f"report-{self.name}.json"

    @property
    def quarantine_path(self) -> Path:
        """What was dropped."""
        return self._work / f"quarantine-{self.name}.parquet"

    @property
    def _work(self) -> Path:
        return self.captions / WORK_FOLDER

    def report(self) -> GroupReport:
        """The counts of a whole group."""
        return GroupReport(**json.loads(self.report_path.read_text(encoding="utf-8")))

    def dropped(self) -> Iterator[Row]:
        """The quarantine's rows."""
        return read_rows(self.quarantine_path)

    def write(
        self,
        entries: Iterable[Numbered],
        make: Callable[[int, FineImage], Made],
        pool: ThreadPoolExecutor,
        seen: SeenImages,
    ) -> None:
        """Read the images and write everything; what a killed run left of the group goes."""
        for folder in (self.captions / self.name, self.images / self.name):
            shutil.rmtree(folder, ignore_errors=True)
        kept = _Kept()
        samples = kept.samples(_made(entries, make, pool), seen)
        first = next(samples, None)
        if first is not None:
            write_shard(self.images / self.name / SHARD, itertools.chain((first,), samples))
            write_rows(
                self.images / self.name / MANIFEST_NAME, kept.manifest, images_contract.SCHEMA
            )
            write_rows(self.captions / self.name / part_name(0), kept.rows, SCHEMA)
        write_quarantine(self.quarantine_path, kept.dropped)
        seen.commit()
        write_whole(self.report_path, json.dumps(asdict(kept.report())))


def _made(
    entries: Iterable[Numbered],
    make: Callable[[int, FineImage], Made],
    pool: ThreadPoolExecutor,
) -> Iterator[Made]:
    left = iter(entries)
    while window := list(itertools.islice(left, WINDOW)):
        yield from pool.map(lambda one: make(*one), window)


class _Kept:
    """What is kept of a group, and what is not, while its images are written."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.manifest: list[Row] = []
        self.dropped: list[Row] = []
        self._num_entries = 0

    def samples(self, made: Iterable[Made], seen: SeenImages) -> Iterator[dict[str, Any]]:
        """The images of the group as samples of its tar."""
        for one in made:
            self._num_entries += 1
            if one.image and one.image.sha256 and one.rows:
                first = seen.first_with(one.image.sha256, one.number)
                if first != one.number:
                    one.drop_all(FineHardReason.DUPLICATE_IMAGE, f"entry {first} has it too")
            self.dropped += one.dropped
            if one.rows and one.image:
                self.rows += [row | {"image_shard": SHARD} for row in one.rows]
                self.manifest.append(_manifest_row(one))
                yield {"__key__": one.image.sha256, "jpg": one.jpeg}

    def report(self) -> GroupReport:
        """The counts."""
        return GroupReport(
            num_entries=self._num_entries,
            num_images=len(self.manifest),
            num_rows=len(self.rows),
            num_negatives=sum(bool(row["hard_negatives"]) for row in self.rows),
            reasons=dict(Counter(row["reason"] for row in self.dropped)),
        )


def _manifest_row(made: Made) -> Row:
    image = made.image
    assert image
    return {
        "url": made.url,
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": image.sha256,
        "shard": SHARD,
        "num_bytes": len(made.jpeg),
        "width_px": image.width_px,
        "height_px": image.height_px,
        "phash": image.phash,
        "stored_width": image.stored_width,
        "stored_height": image.stored_height,
        "orientation": image.orientation,
    }
