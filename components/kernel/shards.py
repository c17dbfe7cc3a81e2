"""WebDataset tar shards: the same samples give the same bytes; members are read at random."""

import json
import tarfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.kernel.errors import InputError


def write_shard(path: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write samples (`__key__` and extension -> bytes, str or JSON value) by rename."""
    from webdataset import TarWriter  # imports torch where that is installed

    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(partial), encoder=False, mtime=0, user="root", group="root") as writer:
        for sample in samples:
            writer.write({name: _as_bytes(value) for name, value in sample.items()})
    partial.replace(path)


def _as_bytes(value: Any) -> Any:
    if isinstance(value, (bytes, str)):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()


@lru_cache(maxsize=64)
def _index(path: Path, _mtime_ns: int) -> dict[str, tuple[int, int]]:
    with tarfile.open(path, "r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}


def read_member(shard: Path, name: str) -> bytes:
    """One member of a shard, without unpacking the others.

    Raises:
        InputError: the shard or the member is missing.
    """
    try:
        offset, size = _index(shard, shard.stat().st_mtime_ns)[name]
    except FileNotFoundError:
        raise InputError(f"shard {shard} is missing") from None
    except KeyError:
        raise InputError(f"shard {shard} has no member {name}") from None
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def read_image_bytes(images: Path, shard: str, sha256: str) -> bytes:
    """The encoded JPEG of an image of the `images` artifact."""
    return read_member(images / shard, f"{sha256}.jpg")
