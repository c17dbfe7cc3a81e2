"""Read the data set's samples in order, from its own files alone."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.kernel.errors import InputError

SPLITS = ("train", "val", "benchmark")


@dataclass(frozen=True)
class Sample:
    """One image with its regions, as `key.jpg` and `key.json` hold them."""

    key: str
    jpeg: bytes
    content: dict[str, Any]


def read_samples(longgrit: Path, split: str) -> Iterator[Sample]:
    """Stream a split's samples, one image in memory at a time.

    Raises:
        InputError: a shard holds something else than pairs of `jpg` and `json`.
    """
    for shard in sorted((longgrit / split).glob("*.tar")):
        with tarfile.open(shard, "r|") as members:
            parts: dict[str, bytes] = {}
            for member in members:
                key, _, extension = member.name.partition(".")
                file = members.extractfile(member)
                if file is None or extension not in ("jpg", "json") or "/" in key:
                    raise InputError(f"{shard} holds {member.name}, which is no part of a sample")
                parts[f"{key}.{extension}"] = file.read()
                if len(parts) == 2:
                    yield _join(shard, key, parts)
                    parts = {}


def _join(shard: Path, key: str, parts: dict[str, bytes]) -> Sample:
    if set(parts) != {f"{key}.jpg", f"{key}.json"}:
        raise InputError(f"{shard}: {' and '.join(parts)} are not one sample")
    return Sample(key, parts[f"{key}.jpg"], json.loads(parts[f"{key}.json"]))
