"""WebDataset tar shards: the same samples give the same bytes; members are read at random."""

import json
import tarfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from components.core.errors import InputError
from components.core.files import written_whole
from components.core.tables import storable
from pixclip.data.shards import Member, TarError, read_members


def write_shard(path: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write samples (`__key__`, and extension -> bytes or JSON value) by rename.

    The bytes are those of webdataset's own TarWriter, whose package imports torch where it can.
    Lone surrogates, which readers refuse, become U+FFFD.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, tarfile.open(partial, "w") as tar:
        for sample in samples:
            for extension in sorted(sample.keys() - {"__key__"}):
                content = _as_bytes(sample[extension])
                member = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                member.size, member.mode = len(content), 0o444
                member.uname = member.gname = "root"  # not whoever runs this
                tar.addfile(member, BytesIO(content))


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(storable(text)).encode()


@lru_cache(maxsize=64)
def _index(path: Path, _mtime_ns: int) -> dict[str, tuple[int, int]]:
    return {member.name: (member.offset, member.size) for member in members_of(path)}


def members_of(shard: Path) -> list[Member]:
    """The files of a shard.

    Raises:
        InputError: it is missing, or no tar of plain files.
    """
    try:
        with shard.open("rb") as file:
            return list(read_members(file))
    except FileNotFoundError:
        raise InputError(f"shard {shard} is missing") from None
    except (TarError, OSError) as error:
        raise InputError(f"shard {shard} is no tar or is damaged: {error}") from error


def read_member(shard: Path, name: str) -> bytes:
    """One member of a shard, without unpacking the others.

    Raises:
        InputError: the shard or the member is missing, or the shard is damaged.
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
