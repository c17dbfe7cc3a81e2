"""The journal of a group's downloads: what was received is durable at once.

One append-only file of records: a head of fixed size (a mark, two sizes, three checksums), fields
as JSON, and the bytes that were received. A record is written by one `write` as soon as an answer
is complete, so `kill -9` costs at most the answers that are still arriving: a record that was cut
off ends the journal, and that is no damage.

A damaged record is left out and reported, alone: where its sizes cannot be believed, the
next mark is looked for. The mark is drawn by lot for every journal and stands in its head twice,
so that no server can send bytes that look like a record.
"""

import json
import logging
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from components.core.errors import InputError
from components.data.ingest.failures import local_fault

log = logging.getLogger(__name__)

SYNC_EVERY_BYTES = 64_000_000  # what a crash of the machine (not of the process) can cost
NAMED_DAMAGES = 5
FORMAT, MARK_BYTES = b"PXJ2", 12
FILE_HEAD = struct.Struct(f">4s{MARK_BYTES}sI")  # format, mark, checksum; it stands there twice
# Mark, size of the fields, size of the bytes, checksums of both, checksum of the head itself.
HEAD = struct.Struct(f">{MARK_BYTES}sIQIII")
Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class Entry:
    """A record of the journal: its fields, where its bytes lie, and their checksum."""

    fields: Mapping[str, Any]
    offset: int
    size: int
    checksum: int


@dataclass
class _Contents:
    """What a journal's file holds."""

    mark: bytes
    entries: list[Entry] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)
    end: int = 2 * FILE_HEAD.size  # where the next record goes


class Journal:
    """Append records from any thread; the newest record of a kind and URL counts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = _open_contents(path)
        self._path, self._mark, self._end = path, contents.mark, contents.end
        self._lock = threading.Lock()
        self._entries = {(one.fields["kind"], one.fields["url"]): one for one in contents.entries}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._write(_file_head(self._mark), 0)
        os.ftruncate(self._file, self._end)
        self._synced_to = self._end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, kind: str, url: str, fields: Mapping[str, Any], payload: bytes = b"") -> Entry:
        """Keep a record and its bytes.

        Raises:
            WorldError: the disk takes no more.
        """
        whole = {**fields, "kind": kind, "url": url}
        text = json.dumps(whole).encode()
        checksum = zlib.crc32(payload)
        head = _head(self._mark, len(text), len(payload), zlib.crc32(text), checksum)
        with self._lock:
            self._write(head + text + payload, self._end)
            entry = Entry(whole, self._end + len(head) + len(text), len(payload), checksum)
            self._entries[kind, url] = entry
            self._end = entry.offset + entry.size
            if self._end - self._synced_to > SYNC_EVERY_BYTES:
                os.fdatasync(self._file)
                self._synced_to = self._end
        return entry

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise local_fault(error, f"cannot write {self._path}") from error

    @property
    def folder(self) -> Path:
        """Where the journal lies, and other unfinished work with it."""
        return self._path.parent

    def find(self, kind: str, url: str) -> Entry | None:
        """The newest record of that kind for a URL."""
        return self._entries.get((kind, url))

    def get(self, kind: str, url: str) -> Entry:
        """The newest record of that kind for a URL, which is there."""
        return self._entries[kind, url]

    def payload(self, entry: Entry) -> bytes:
        """The bytes of a record.

        Raises:
            InputError: they are no longer those that were received.
        """
        data = os.pread(self._file, entry.size, entry.offset)
        if len(data) != entry.size or zlib.crc32(data) != entry.checksum:
            raise InputError(
                f"{self._path} was damaged while it was in use, at byte {entry.offset}: start the "
                "step again, it asks for what is lost; if that comes again, look at the disk"
            )
        return data


def _head(mark: bytes, text_size: int, size: int, text_checksum: int, checksum: int) -> bytes:
    packed = HEAD.pack(mark, text_size, size, text_checksum, checksum, 0)[:-4]
    return packed + struct.pack(">I", zlib.crc32(packed))


def _file_head(mark: bytes) -> bytes:
    return 2 * FILE_HEAD.pack(FORMAT, mark, zlib.crc32(FORMAT + mark))


def read_entries(path: Path) -> Iterator[Entry]:
    """The records of a journal that are whole and sound."""
    yield from _read_contents(path).entries


def _open_contents(path: Path) -> _Contents:
    """The contents of a journal that is about to be used; reports what is damaged."""
    contents = _read_contents(path)
    if contents.damages:
        named = ", ".join(contents.damages[:NAMED_DAMAGES])
        more = "" if len(contents.damages) <= NAMED_DAMAGES else ", …"
        log.warning(
            "%s is damaged in %d place(s) (%s%s): what was there is left out and asked for again",
            *(path, len(contents.damages), named, more),
        )
    if not contents.mark:
        if contents.damages:
            aside = path.with_name(f"{path.name}.unreadable")
            path.rename(aside)
            log.warning("nothing in it can be read: it is kept as %s, and a new one begins", aside)
        contents.mark = os.urandom(MARK_BYTES)
    return contents


def _read_contents(path: Path) -> _Contents:
    if not path.exists() or not path.stat().st_size:
        return _Contents(b"")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _contents(data)


def _contents(data: Buffer) -> _Contents:
    places = (0, FILE_HEAD.size)
    marks = [_mark_at(data, place) for place in places if len(data) >= place + FILE_HEAD.size]
    contents = _Contents(next(filter(None, marks), b""))
    if not contents.mark:
        # A process that was killed as it made the file leaves less than its head.
        contents.damages += ["head"] if len(data) >= 2 * FILE_HEAD.size else []
        return contents
    if len(data) >= 2 * FILE_HEAD.size and data[: 2 * FILE_HEAD.size] != _file_head(contents.mark):
        contents.damages.append("head")
    while contents.end < len(data):
        if not _read_record(data, contents):
            break
    return contents


def _mark_at(data: Buffer, place: int) -> bytes:
    form, mark, checksum = FILE_HEAD.unpack(data[place : place + FILE_HEAD.size])
    return bytes(mark) if zlib.crc32(form + mark) == checksum and form == FORMAT else b""


def _read_record(data: Buffer, contents: _Contents) -> bool:
    """Read or leave out the record at `end`, and move it; False after the last one."""
    start = contents.end
    head = _head_at(data, start, contents.mark)
    if head is None:
        following = data.find(contents.mark, start + 1)
        while following >= 0 and _head_at(data, following, contents.mark) is None:
            following = data.find(contents.mark, following + 1)
        if following >= 0 or not _is_cut_off(data[start : start + HEAD.size], contents.mark):
            contents.damages.append(f"byte {start}")
        contents.end = following if following >= 0 else start
        return following >= 0
    text_size, size, text_checksum, checksum = head
    text_start = start + HEAD.size
    offset = text_start + text_size
    if offset + size > len(data):  # cut off
        return False
    contents.end = offset + size
    text = data[text_start:offset]
    fields = json.loads(text) if zlib.crc32(text) == text_checksum else None
    if fields is None or zlib.crc32(data[offset : offset + size]) != checksum:
        contents.damages.append(f"byte {start}")
    else:
        contents.entries.append(Entry(fields, offset, size, checksum))
    return True


def _head_at(data: Buffer, start: int, mark: bytes) -> tuple[int, int, int, int] | None:
    packed = data[start : start + HEAD.size]
    if len(packed) < HEAD.size:
        return None
    own_mark, text_size, size, text_checksum, checksum, own_checksum = HEAD.unpack(packed)
    if own_mark != mark or zlib.crc32(packed[:-4]) != own_checksum:
        return None
    return text_size, size, text_checksum, checksum


def _is_cut_off(rest: bytes, mark: bytes) -> bool:
    """Whether these are the first bytes of a head that was not written whole."""
    return len(rest) < HEAD.size and rest[:MARK_BYTES] == mark[: len(rest)]
