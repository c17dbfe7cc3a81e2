"""Every answer, kept under its request's hash as soon as it is received.

A file of lines, because answers cost money and a damaged line costs one of them alone:

    <16 hex digits of the SHA-256 of the rest> <request hash> {"content": "...", ...}

A line is written at once and appended, so that a killed process loses no answer that it had
received, and several processes may share the file. What cannot be read is left out and logged.
"""

import hashlib
import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from components.core.errors import InputError, PipelineError

log = logging.getLogger(__name__)

HEADER = b"# Answers of language models by request, kept by PixCLIP; layout 2\n"
CHECK_CHARS = 16
_START = re.compile(rb"[0-9a-f]{16} [0-9a-f]{64} \{")
MAX_LINE_BYTES = 32 << 20  # a reply has at most 4 MiB, and a character becomes up to 6 in JSON


@dataclass(frozen=True)
class RawAnswer:
    """What a server answered, before anything is made of it."""

    content: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class AnswerFiles:
    """Where answers are kept, and where an earlier version may have left some."""

    path: Path
    older: Path


class AnswerCache:
    """Answers by request hash; use it as a context manager.

    Raises:
        InputError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}  # request hash -> offset and size of a line
        self._end = 0  # of what was read
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(
                f"the answers {path} cannot be opened: {error.strerror}; name another folder in "
                "describe.cache_folder"
            ) from error
        try:
            self._open()
        except OSError as error:
            os.close(self._file)
            raise InputError(f"the answers {path} cannot be read: {error.strerror}") from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def get(self, request_hash: str) -> RawAnswer | None:
        """The kept answer, if there is one."""
        if request_hash not in self._places:
            self._read_on()  # another process may have asked meanwhile
        place = self._places.get(request_hash)
        if place is None:
            return None
        answer = self._read(*place)
        if answer is None:  # damaged since its place was noted
            del self._places[request_hash]
            self._tell(1)
        return answer

    def put(self, request_hash: str, answer: RawAnswer) -> None:
        """Keep an answer; when this returns, killing the process does not lose it.

        Raises:
            PipelineError: it cannot be written.
        """
        self._append(_line(request_hash, answer))
        self._read_on()

    def adopt(self, database: Path) -> None:
        """Take over the answers of a database of the layout before this one, if it is there."""
        if not database.is_file():
            return
        num_known = len(self._places)
        try:
            with closing(
                sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
            ) as old:
                rows = old.execute("SELECT * FROM answers")
                for request_hash, *fields in rows:
                    if request_hash not in self._places:
                        self.put(request_hash, RawAnswer(*fields))
        except (sqlite3.Error, TypeError, ValueError) as error:
            log.warning("the rest of the answers in %s cannot be read: %s", database, error)
        log.info("%d answer(s) taken over from %s", len(self._places) - num_known, database)

    def _open(self) -> None:
        start = os.pread(self._file, len(HEADER), 0)
        self._append(b"" if start else HEADER)  # ends a line that was cut off
        self._read_on()
        if start not in (b"", HEADER) and not self._places:
            raise InputError(
                f"{self._path} does not hold answers of language models; remove it, or name "
                "another folder in describe.cache_folder"
            )

    def _read(self, offset: int, size: int) -> RawAnswer | None:
        try:
            return _answer_of(os.pread(self._file, size, offset))
        except OSError:  # a bad sector
            return None

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        is_torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        rest = (b"\n" if is_torn else b"") + line
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise PipelineError(
                f"the answers cannot be kept in {self._path}: {error.strerror}. Those before are "
                "kept: make room and run the step again"
            ) from error

    def _read_on(self) -> None:
        """Note the places of the lines that are new since the last reading."""
        num_damaged = 0
        for offset, line in self._new_lines():
            for start, part in _parts(line):
                record = _checked(part)
                if record is not None:
                    place = (offset + start, len(part))
                    request_hash = record.partition(b" ")[0].decode()
                    self._places.setdefault(request_hash, place)  # the first holds
                elif offset and part.strip() and part != HEADER:
                    num_damaged += 1
        self._tell(num_damaged)

    def _new_lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines with their offsets; one that is cut off may still be on its way."""
        if os.fstat(self._file).st_size <= self._end:
            return
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(self._end)
            line = file.readline(MAX_LINE_BYTES)
            while line.endswith(b"\n") or len(line) == MAX_LINE_BYTES:
                offset, self._end = self._end, self._end + len(line)
                yield offset, line
                line = file.readline(MAX_LINE_BYTES)

    def _tell(self, num_damaged: int) -> None:
        if num_damaged:
            log.warning(
                "%d line(s) of %s cannot be read and are left out: what they answered is asked "
                "again",
                num_damaged,
                self._path,
            )


def _line(request_hash: str, answer: RawAnswer) -> bytes:
    record = f"{request_hash} {json.dumps(asdict(answer), sort_keys=True)}".encode()
    return _check(record) + b" " + record + b"\n"


def _check(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest()[:CHECK_CHARS].encode()


def _checked(line: bytes) -> bytes | None:
    """The record of a line that is whole."""
    check, _, record = line.rstrip(b"\n").partition(b" ")
    return record if check == _check(record) else None


def _parts(line: bytes) -> Iterator[tuple[int, bytes]]:
    """Offsets and records of a line: more than one where the end of a line was damaged."""
    if _checked(line) is not None:
        yield 0, line
        return
    starts = [0, *(match.start() for match in _START.finditer(line) if match.start())]
    for start, after in zip(starts, [*starts[1:], len(line) + 1], strict=True):
        yield start, line[start : after - 1]


def _answer_of(line: bytes) -> RawAnswer | None:
    record = _checked(line)
    if record is None:
        return None
    try:
        return RawAnswer(**json.loads(record.partition(b" ")[2]))
    except (ValueError, TypeError):
        return None
