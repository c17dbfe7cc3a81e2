"""The journal of a group's downloads: what was received is durable at once.

One append-only file of records; a record is a line (checksum and JSON) and the bytes it announces.
It is written by one `write` as soon as an answer is complete, so `kill -9` costs at most the
answers that are still arriving. A record that was cut off, or damaged by a lost machine, ends the
journal.
"""

import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

SYNC_EVERY_BYTES = 64_000_000  # what a crash of the machine (not of the process) can cost
MAX_HEADER_BYTES = 2**24  # some URLs of web lists are whole documents


@dataclass(frozen=True)
class Entry:
    """A record of the journal: its fields, and where its bytes lie."""

    fields: Mapping[str, Any]
    offset: int
    size: int


class Journal:
    """Append records from any thread; the newest record of a kind and URL counts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._end = 0
        for entry in read_entries(path):
            self._entries[entry.fields["kind"], entry.fields["url"]] = entry
            self._end = entry.offset + entry.size
        os.ftruncate(self._file, self._end)
        self._synced_to = self._end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, kind: str, url: str, fields: Mapping[str, Any], payload: bytes = b"") -> Entry:
        """Keep a record and its bytes."""
        whole = {**fields, "kind": kind, "url": url, "size": len(payload)}
        head = json.dumps(whole).encode()
        line = b"%08x %b\n" % (_checksum(head, payload), head)
        with self._lock:
            _write_all(self._file, self._end, line + payload)
            entry = Entry(whole, self._end + len(line), len(payload))
            self._entries[kind, url] = entry
            self._end = entry.offset + entry.size
            if self._end - self._synced_to > SYNC_EVERY_BYTES:
                os.fdatasync(self._file)
                self._synced_to = self._end
        return entry

    def find(self, kind: str, url: str) -> Entry | None:
        """The newest record of that kind for a URL."""
        return self._entries.get((kind, url))

    def get(self, kind: str, url: str) -> Entry:
        """The newest record of that kind for a URL, which is there."""
        return self._entries[kind, url]

    def payload(self, entry: Entry) -> bytes:
        """The bytes of a record."""
        data = os.pread(self._file, entry.size, entry.offset)
        assert len(data) == entry.size, "the journal was cut while it was in use"
        return data


def _write_all(file: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _checksum(head: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(head))


def read_entries(path: Path) -> Iterator[Entry]:
    """The whole records of a journal, up to the first that is cut off or damaged."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        while line := file.readline(MAX_HEADER_BYTES):
            checksum, _, head = line.rstrip(b"\n").partition(b" ")
            try:
                fields = json.loads(head)
                size = int(fields["size"])
                expected = int(checksum, 16)
            except (ValueError, KeyError, TypeError):
                return
            offset = file.tell()
            if not 0 <= size <= num_bytes - offset:
                return
            payload = file.read(size)
            if not line.endswith(b"\n") or _checksum(head, payload) != expected:
                return
            yield Entry(fields, offset, size)
