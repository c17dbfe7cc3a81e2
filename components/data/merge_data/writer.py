"""Write the merged set: shards, manifest, and the quarantine of what is left out.

A shard that stays as it is becomes a hard link. One of which images are left out, or whose regions
get other ids, is written anew of the same bytes: no image is decoded, and nothing else of a
description changes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.counts import quarantine_row, write_quarantine
from components.core.files import link_or_copy, written_whole
from components.core.progress import progress
from components.core.shards import members_of, read_member, write_shard
from components.core.tables import Row, open_writer
from components.data.merge_data.overlap import LeftOut
from components.data.merge_data.sets import DataSet
from data_contracts.engine.contract import hash_keys
from data_contracts.longgrit import SCHEMA
from pixclip.data.layout import CARD_NAME, MANIFEST_NAME, REPORT_NAME
from pixclip.data.shards import Member

STEP = "merge_data"
SETS = "sets"  # folder with card, report and version of each set
VERSION_NAME = "version.json"  # as `resolve_data` writes it
KEPT_FILES = (CARD_NAME, REPORT_NAME, VERSION_NAME)


@dataclass
class SplitCount:
    """What a split of the merged set has of one of its sets."""

    num_images: int = 0
    num_regions: int = 0
    subsets: Counter[str] = field(default_factory=Counter)


@dataclass
class SetCount:
    """What became of a set."""

    splits: dict[str, SplitCount] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, reason) -> regions
    num_images_left_out: int = 0

    @property
    def num_regions(self) -> int:
        """Regions of it that the merged set has."""
        return sum(split.num_regions for split in self.splits.values())


Counts = dict[str, SetCount]  # by set
LeftOutImages = Sequence[Mapping[int, LeftOut]]  # of each set, by key
Gone = dict[str, set[str]]  # shard -> names of the samples that are left out


def write_merged(
    sets: Sequence[DataSet], left_out: LeftOutImages, dataset: Path, quarantine: Path
) -> Counts:
    """Write everything but card and report; what became of every set."""
    counts = {one.name: SetCount() for one in sets}
    gone: dict[str, Gone] = {one.name: defaultdict(set) for one in sets}
    write_quarantine(quarantine, _quarantined(sets, left_out, counts, gone))
    _write_manifest(sets, left_out, dataset / MANIFEST_NAME, counts)
    for one in sets:
        _put_shards(one, gone[one.name], dataset)
        for name in KEPT_FILES:
            if (one.folder / name).is_file():
                _link(one.folder / name, dataset / SETS / one.name / name)
    return counts


def merged_name(one: DataSet, shard: str) -> str:
    """A shard's name in the merged set: train/00000.tar of fgpart is train/fgpart-00000.tar."""
    split, _, name = shard.rpartition("/")
    return f"{split}/{one.name}-{name}"


def _quarantined(
    sets: Sequence[DataSet], left_out: LeftOutImages, counts: Counts, gone: Mapping[str, Gone]
) -> Iterator[Row]:
    for one, images in zip(sets, left_out, strict=True):
        count = counts[one.name]
        count.num_images_left_out = len(images)
        for batch in one.batches() if images else ():
            keys = hash_keys(batch, "image_id")
            rows = np.flatnonzero(np.isin(keys, np.fromiter(images, np.uint64, len(images))))
            for row, key in zip(batch.take(rows).to_pylist(), keys[rows].tolist(), strict=True):
                why = images[key]
                gone[one.name][row["shard"]].add(row["key"])
                count.reasons[row["split"], why.reason] += 1
                yield quarantine_row(STEP, _as_region(one, row), why.reason, why.detail)


def _as_region(one: DataSet, row: Row) -> Row:
    """A row of a manifest with what the quarantine needs; the sample's name stands for a record."""
    sample = json.loads(read_member(one.folder / row["shard"], f"{row['key']}.json"))
    return {
        **row,
        "region_id": one.prefix + row["region_id"],
        "record_id": row["key"],
        "url": sample["url"],
        "image_sha256": row["image_id"],
        "set": one.name,
    }


def _write_manifest(
    sets: Sequence[DataSet], left_out: LeftOutImages, path: Path, counts: Counts
) -> None:
    """Stream every manifest into one; rows of an image stay neighbours."""
    with (
        written_whole(path) as partial,
        open_writer(partial, SCHEMA) as writer,
        progress("merge: manifest", unit="region") as bar,
    ):
        for one, images in zip(sets, left_out, strict=True):
            gone = np.fromiter(images, np.uint64, len(images))
            last = ""
            for batch in one.batches():
                kept = batch.filter(pa.array(~np.isin(hash_keys(batch, "image_id"), gone)))
                last = _count(kept, counts[one.name], last)
                writer.write_table(_renamed(one, kept))
                bar.update(batch.num_rows)


def _renamed(one: DataSet, batch: pa.RecordBatch) -> pa.Table:
    table = pa.Table.from_batches([batch]).select(SCHEMA.names)
    shards = pc.replace_substring(table["shard"], "/", f"/{one.name}-", max_replacements=1)
    ids = pc.binary_join_element_wise(one.prefix, table["region_id"], "")
    for name, values in (("shard", shards), ("region_id", ids)):
        table = table.set_column(table.column_names.index(name), name, values)
    return table.cast(SCHEMA)


def _count(batch: pa.RecordBatch, count: SetCount, last: str) -> str:
    """Count the rows of a batch; the last image that was seen, which may go on in the next."""
    columns = (batch[name].to_pylist() for name in ("split", "image_id", "subset"))
    for split_name, image, subset in zip(*columns, strict=True):
        split = count.splits.setdefault(split_name, SplitCount())
        split.num_images += image != last
        split.num_regions += 1
        split.subsets[subset] += 1
        last = image
    return last


def _put_shards(one: DataSet, gone: Gone, dataset: Path) -> None:
    """Give the merged set the shards of one set; those of a killed run are kept."""
    names = {
        name for batch in one.batches(["shard"]) for name in batch["shard"].unique().to_pylist()
    }
    with progress(f"merge: shards of {one.name}", len(names), unit="shard") as bar:
        for shard in sorted(names):
            source, target = one.folder / shard, dataset / merged_name(one, shard)
            if not target.exists():
                _put_shard(source, target, gone.get(shard, set()), one.prefix)
            bar.update()


def _put_shard(source: Path, target: Path, gone: set[str], prefix: str) -> None:
    """Link a shard that stays as it is; write another anew, unless nothing of it is left."""
    if not (prefix or gone):
        _link(source, target)
        return
    samples = [sample for sample in _samples(source) if sample.name not in gone]
    if samples:
        write_shard(target, (_read_sample(source, sample, prefix) for sample in samples))


@dataclass(frozen=True)
class Packed:
    """A sample of a shard: where the content of each of its files is."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)  # by extension


def _samples(shard: Path) -> list[Packed]:
    samples: dict[str, Packed] = {}
    for member in members_of(shard):
        name, _, extension = member.name.partition(".")
        samples.setdefault(name, Packed(name)).members[extension] = member
    return list(samples.values())


def _read_sample(shard: Path, sample: Packed, prefix: str) -> dict[str, Any]:
    """A sample as `write_shard` takes it; ids of regions get the prefix."""
    content: dict[str, Any] = {"__key__": sample.name}
    with shard.open("rb") as file:
        for extension, member in sample.members.items():
            file.seek(member.offset)
            content[extension] = file.read(member.size)
    if prefix:
        description = json.loads(content["json"])
        for region in description["regions"]:
            region["region_id"] = prefix + region["region_id"]
        content["json"] = description
    return content


def _link(source: Path, target: Path) -> None:
    """A hard link of a file, or a copy that appears whole; the rest of a killed run is replaced."""
    if (
        target.exists()
    ):  # by a killed run; to rename a link to another of the same file does nothing
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as partial:
        partial.unlink(missing_ok=True)
        link_or_copy(str(source), str(partial))
