"""The members of a tar shard: names, places and sizes, and no trust in any of them.

The one reader of shards. Python's `tarfile` is ten times slower, takes any type of member, recurses
over extended headers and allocates what a header says.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pixclip.json_files import shown

# Offsets of POSIX ustar: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
BLOCK_BYTES = 512  # headers and contents start at multiples of it
CHECKSUM = slice(148, 156)
REGULAR, FOLDER = (b"0", b"\0", b"7"), b"5"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
OTHER_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "a part of a file of another volume",
}
MAX_EXTENSION_BYTES = 2**20  # of an extended header: names are far shorter
MAX_NAME_CHARS = 4096
UNUSUAL = re.compile(r"[\x00-\x1f\x7f\\]")  # in a name
PAX_LENGTH = re.compile(rb"([0-9]{1,7}) ")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class TarError(ValueError):
    """A file that is no tar of plain files, or is damaged."""


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar: its content is `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


def read_members(file: BinaryIO) -> Iterator[Member]:
    """The plain files of a tar in their order; every one of them lies inside the file.

    Folders are passed over. Names are plainly relative, a leading `./` is left out.

    Raises:
        TarError: it is no tar, is compressed or ends too early, or holds a link, a device, a
            sparse file, or a name that leads out of it.
    """
    num_bytes = file.seek(0, 2)
    if not num_bytes:
        raise TarError("it is empty")
    offset, extended = 0, _Extended()
    while (header := _header(file, offset)).strip(b"\0"):
        _check_sum(header, offset)
        kind, content = header[156:157], offset + BLOCK_BYTES
        is_extension = kind in (PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK)
        name = _name(header) if is_extension else extended.name or _name(header)
        size = _size(header, name)
        if not is_extension and extended.size is not None:
            size = extended.size
        if size > num_bytes - content:
            raise TarError(f"it ends inside its member {shown(name)}")
        if is_extension:
            extended.read(file, kind, content, size)
        else:
            if kind in REGULAR and not (kind == b"\0" and name.endswith("/")):
                yield Member(_plain(name), content, size)
            elif kind not in (FOLDER, b"\0"):
                what = OTHER_TYPES.get(kind, f"of the unknown type {kind!r}")
                raise TarError(f"its member {shown(name)} is {what}; shards hold plain files alone")
            extended = _Extended()
        offset = content + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _header(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    header = file.read(BLOCK_BYTES)
    packing = next((name for start, name in PACKED.items() if header.startswith(start)), "")
    if packing and not offset:
        raise TarError(f"it is compressed by {packing}; samples are read at random: unpack it")
    if len(header) < BLOCK_BYTES:
        raise TarError("it ends without the closing blocks of a tar")
    return header


def _check_sum(header: bytes, offset: int) -> None:
    told = header[CHECKSUM].strip(b"\0 ")
    rest = header[: CHECKSUM.start] + b" " * 8 + header[CHECKSUM.stop :]
    signed = sum(rest) - 256 * sum(byte > 127 for byte in rest) if not rest.isascii() else None
    if not re.fullmatch(rb"[0-7]+", told) or int(told, 8) not in (sum(rest), signed):
        raise TarError(f"the header at byte {offset} has another checksum than it says")


def _name(header: bytes) -> str:
    name, prefix = (part.split(b"\0", 1)[0] for part in (header[:100], header[345:500]))
    if prefix and header[257:263] == b"ustar\0":  # GNU has other things there
        name = prefix + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise TarError(f"its member {shown(name)} has a name that is not UTF-8") from None


def _size(header: bytes, name: str) -> int:
    field = header[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if field[0] == 0xFF or digits.startswith(b"-"):  # it would lead back, and around for ever
        raise TarError(f"its member {shown(name)} has a negative size")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise TarError(f"its member {shown(name)} has a size that is no number: {field!r}")
    return int(digits or b"0", 8)


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    is_inside = name and not name.startswith("/") and ".." not in name.split("/")
    if not is_inside or UNUSUAL.search(name) or len(name) > MAX_NAME_CHARS:
        raise TarError(f"its member {shown(name)} has no plain name, which stays in the shard")
    return name


class _Extended:
    """What extended headers say of the member that follows."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None

    def read(self, file: BinaryIO, kind: bytes, offset: int, size: int) -> None:
        if size > MAX_EXTENSION_BYTES:
            raise TarError(f"an extended header of {size} bytes; at most {MAX_EXTENSION_BYTES}")
        file.seek(offset)
        content = file.read(size)
        if kind == LONG_NAME:
            self.name = _text(content.rstrip(b"\0"))
        elif kind in (PAX, PAX_GLOBAL):
            for keyword, value in _pax_records(content):
                self._take(keyword, value, is_global=kind == PAX_GLOBAL)

    def _take(self, keyword: str, value: bytes, *, is_global: bool) -> None:
        if keyword.startswith("GNU.sparse."):
            raise TarError("a sparse file; shards hold plain files alone")
        if keyword not in ("path", "size"):
            return
        if is_global:
            raise TarError(f"a global header that gives every member the {keyword} {shown(value)}")
        if keyword == "path":
            self.name = _text(value)
        elif re.fullmatch(rb"[0-9]{1,19}", value):
            self.size = int(value)
        else:
            raise TarError(f"an extended header with the size {shown(value)}, which is no number")


def _pax_records(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Records `length keyword=value` with a line feed; the length counts all of it."""
    start = 0
    content = content.rstrip(b"\0")
    while start < len(content):
        length = PAX_LENGTH.match(content, start)
        stop = start + int(length[1]) if length else 0
        record = content[length.end() : stop] if length else b""
        keyword, separator, value = record[:-1].partition(b"=")
        if not separator or not record.endswith(b"\n") or stop > len(content):
            raise TarError("an extended header whose records cannot be read")
        yield keyword.decode("utf-8", "replace"), value
        start = stop
