"""The data sets that are merged: what their receipts, contracts and manifests say of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.core.contracts import require_contract
from components.core.errors import InputError
from components.core.receipts import read_receipt
from components.core.tables import read_batches
from data_contracts.engine.contract import hash_keys, is_among
from pixclip.data.layout import MANIFEST_NAME, SPLITS
from pixclip.near_duplicates import Hashes

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # as `publish` names data sets


@dataclass(frozen=True)
class ImageTable:
    """What the splits need to know of N images, in the order of their keys: 17 bytes an image."""

    keys: Hashes  # [N], hashes of the images' ids; comparable within a process
    phash: Hashes  # [N]
    splits: npt.NDArray[np.int8]  # [N], places in `SPLITS`


@dataclass(frozen=True)
class DataSet:
    """A data set, and what is put before the ids of its regions so that none comes twice."""

    name: str
    folder: Path
    prefix: str = ""

    @property
    def manifest(self) -> Path:
        """Its table of regions."""
        return self.folder / MANIFEST_NAME

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of its manifest."""
        return read_batches(self.manifest, columns)

    @cached_property
    def images(self) -> ImageTable:
        """Its images, each once."""
        columns = ["image_id", "image_phash", "split"]
        parts = [
            (
                hash_keys(batch, "image_id"),
                np.array([int(text, 16) for text in batch["image_phash"].to_pylist()], np.uint64),
                np.array([SPLITS.index(name) for name in batch["split"].to_pylist()], np.int8),
            )
            for batch in self.batches(columns)
        ]
        keys, phash, splits = (np.concatenate(column) for column in zip(*parts, strict=True))
        keys, first = np.unique(keys, return_index=True)
        return ImageTable(keys, phash[first], splits[first])


def open_sets(datasets: Path) -> list[DataSet]:
    """The data sets in a folder by name; regions of a later one that share an id get a prefix.

    Raises:
        InputError: there are fewer than two, one has no receipt or another form, or a name that
            cannot be part of a shard's.
        ContractViolation: one breaks its contract.
    """
    folders = sorted(
        path for path in datasets.iterdir() if path.is_dir() and path.name[0] not in "._"
    )
    if len(folders) < 2:
        raise InputError(
            f"{datasets} holds {len(folders)} data set(s), and two or more are merged: bring each "
            "into a folder of its own there, by `pixclip resolve-data`, or put a link to it there"
        )
    sets: list[DataSet] = []
    known = np.empty(0, dtype=np.uint64)
    for folder in folders:
        _require_data_set(folder)
        one = DataSet(folder.name, folder)
        ids = np.concatenate(
            [hash_keys(batch, "region_id") for batch in one.batches(["region_id"])]
        )
        if is_among(ids, known).any():
            one = replace(one, prefix=f"{one.name}/")
        known = np.union1d(known, ids)
        sets.append(one)
    return sets


def _require_data_set(folder: Path) -> None:
    if not NAME.fullmatch(folder.name):
        raise InputError(
            f"{folder}: the folder's name becomes part of shard names; use small letters, digits, "
            "- and _"
        )
    if read_receipt(folder) is None:
        raise InputError(
            f"{folder} has no receipt that says what its files are; bring the data set by "
            f"`pixclip resolve-data --dataset {folder} --set uri=…`"
        )
    require_contract("dataset", folder)
