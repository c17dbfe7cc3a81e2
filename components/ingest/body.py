"""Take in an untrusted body: bounded in size and memory, given up as soon as it is no image."""

import zlib
from tempfile import SpooledTemporaryFile
from typing import Self

from components.ingest.check import looks_like_image
from components.ingest.failures import FetchError

IN_MEMORY_BYTES = 1_000_000  # a larger body goes on in a temporary file
SNIFFED_BYTES = 16
UNPACKED_BYTES = 2**18


class Body:
    """Collects the pieces of one body.

    Its methods raise FetchError: `too_large`, `not_an_image` (by the first bytes).
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._num_bytes = 0
        self._is_sniffed = False
        self._file = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def announce(self, num_bytes: int | None) -> None:
        """Refuse a body by its declared length."""
        if num_bytes is not None and num_bytes > self.max_bytes:
            raise FetchError("too_large", f"declared {num_bytes}, limit {self.max_bytes} bytes")

    def write(self, piece: bytes) -> None:
        """Take one piece."""
        self._num_bytes += len(piece)
        if self._num_bytes > self.max_bytes:
            raise FetchError("too_large", f"more than {self.max_bytes} bytes")
        self._file.write(piece)
        if not self._is_sniffed and self._num_bytes >= SNIFFED_BYTES:
            self._sniff()

    def _sniff(self) -> None:
        self._file.seek(0)
        head = self._file.read(SNIFFED_BYTES)
        self._file.seek(0, 2)
        self._is_sniffed = True
        if not looks_like_image(head):
            raise FetchError("not_an_image", f"the body starts with {head!r}")

    def value(self) -> bytes:
        """The whole body."""
        if not self._num_bytes:
            raise FetchError("not_an_image", "the body is empty")
        if not self._is_sniffed:
            self._sniff()
        self._file.seek(0)
        return self._file.read()


class Unpacker:
    """Undoes gzip and deflate in small steps; a bomb is never unpacked past the body's limit.

    The packed bytes have the same limit: a stream may go on for ever and unpack to nothing.
    """

    def __init__(self, encoding: str, body: Body) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise FetchError("bad_encoding", f"content encoding {encoding[:40]!r}, not asked for")
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # gzip or zlib header
        self._body = body
        self._num_packed = 0

    def write(self, piece: bytes) -> None:
        """Unpack one piece into the body."""
        self._num_packed += len(piece)
        if self._num_packed > self._body.max_bytes:
            raise FetchError("too_large", f"more than {self._body.max_bytes} packed bytes")
        # What follows the end is ignored; zlib would collect it.
        while piece and not self._inflate.eof:
            try:
                unpacked = self._inflate.decompress(piece, UNPACKED_BYTES)
            except zlib.error:
                raise FetchError("bad_encoding", "the packed body is damaged") from None
            self._body.write(unpacked)
            piece = self._inflate.unconsumed_tail
