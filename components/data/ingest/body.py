"""Take in an untrusted body: bounded in size and memory, given up as soon as it is no image."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Any, Protocol, Self

from components.core.image_check import looks_like_image
from components.data.ingest.failures import FetchError, local_fault
from data_contracts.reasons import ImageReason, IngestReason

IN_MEMORY_BYTES = 1_000_000  # a larger body goes on in a temporary file
SNIFFED_BYTES = 16
UNPACKED_BYTES = 2**18
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
UNKNOWN = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
MAX_CODINGS = 3


@dataclass(frozen=True)
class Received:
    """What came from a URL, and the facts that decide whether other settings would take it."""

    data: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Takes a body piece by piece."""

    def write(self, piece: bytes) -> None:
        """Take one piece."""
        ...


class Body:
    """Collects the pieces of one body.

    Its methods raise FetchError: `too_large`, `not_an_image` (by the first bytes).
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._is_sniffed = False
        self._file = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def announce(self, num_bytes: int | None) -> None:
        """Refuse a body by its declared length."""
        if num_bytes is not None and num_bytes > self.max_bytes:
            raise FetchError(
                IngestReason.TOO_LARGE, f"declared {num_bytes}, limit {self.max_bytes} bytes"
            )

    def write(self, piece: bytes) -> None:
        """Take one piece."""
        self.num_bytes += len(piece)
        if self.num_bytes > self.max_bytes:
            raise FetchError(IngestReason.TOO_LARGE, f"more than {self.max_bytes} bytes")
        try:
            self._file.write(piece)
        except OSError as error:
            raise local_fault(error, f"cannot write a temporary file in {gettempdir()}") from error
        if not self._is_sniffed and self.num_bytes >= SNIFFED_BYTES:
            self._sniff()

    def _sniff(self) -> None:
        self._file.seek(0)
        head = self._file.read(SNIFFED_BYTES)
        self._file.seek(0, 2)
        self._is_sniffed = True
        if not looks_like_image(head):
            raise FetchError(ImageReason.NOT_AN_IMAGE, f"the body starts with {head!r}")

    def value(self) -> bytes:
        """The whole body."""
        if not self.num_bytes:
            raise FetchError(ImageReason.NOT_AN_IMAGE, "the body is empty")
        if not self._is_sniffed:
            self._sniff()
        self._file.seek(0)
        return self._file.read()


def unpacking(encoding: str, body: Body) -> Sink:
    """Where the pieces of a body go whose Content-Encoding is this header.

    What browsers do not know either (`none`, `utf-8`, `binary`) says nothing about the bytes.

    Raises:
        FetchError: `bad_encoding`: a coding that was not asked for and cannot be undone.
    """
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    known = [coding for coding in codings if coding in PACKED | UNKNOWN]
    if len(known) > MAX_CODINGS or UNKNOWN.intersection(known):
        raise FetchError(
            IngestReason.BAD_ENCODING, f"content encoding {encoding[:40]!r}, not asked for"
        )
    sink: Sink = body
    for _ in known:  # the last one that was applied is the first to be undone; all are the same
        sink = Unpacker(sink, body.max_bytes)
    return sink


class Unpacker:
    """Undoes gzip and deflate in small steps; a bomb is never unpacked past the body's limit.

    The packed bytes have the same limit: a stream may go on for ever and unpack to nothing.
    """

    def __init__(self, sink: Sink, max_bytes: int) -> None:
        self._sink, self._max_bytes = sink, max_bytes
        self._head = b""
        self._inflate: Any = None
        self._num_packed = 0

    def write(self, piece: bytes) -> None:
        """Unpack one piece into the body."""
        self._num_packed += len(piece)
        if self._num_packed > self._max_bytes:
            raise FetchError(IngestReason.TOO_LARGE, f"more than {self._max_bytes} packed bytes")
        if self._inflate is None:
            self._head += piece
            if len(self._head) < 2:
                return
            piece, self._inflate = self._head, zlib.decompressobj(wbits=_window_bits(self._head))
        # What follows the end is ignored; zlib would collect it.
        while piece and not self._inflate.eof:
            try:
                unpacked = self._inflate.decompress(piece, UNPACKED_BYTES)
            except zlib.error:
                raise FetchError(IngestReason.BAD_ENCODING, "the packed body is damaged") from None
            self._sink.write(unpacked)
            piece = self._inflate.unconsumed_tail


def _window_bits(head: Sequence[int]) -> int:
    """What zlib calls the form of a stream: gzip or zlib by its head, else bare deflate."""
    is_zlib = head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return zlib.MAX_WBITS + 32 if is_zlib or (head[0], head[1]) == (0x1F, 0x8B) else -zlib.MAX_WBITS


def is_whole(data: bytes) -> bool:
    """Whether an image file has its end, so that a connection that broke later cost nothing."""
    tail = data[-64:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail
    if data.startswith(b"\x89PNG"):
        return b"IEND" in tail
    if data.startswith(b"GIF8"):
        return tail.rstrip(b"\0").endswith(b";")
    is_webp = data.startswith(b"RIFF") and len(data) >= 8
    return is_webp and int.from_bytes(data[4:8], "little") + 8 <= len(data)
