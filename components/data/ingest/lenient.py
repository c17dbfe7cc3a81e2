"""Read an answer as browsers do, where aiohttp's parser refuses it.

Content-Length twice, blanks in a header's name, lines without a colon, lengths that are no number,
chunks with blanks after their size: none of it hides where the image begins. One request, one
connection, closed after it; addresses are checked as everywhere.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from components.data.ingest.addresses import AddressGuard
from components.data.ingest.failures import FetchError
from data_contracts.reasons import IngestReason

MAX_HEADER_BYTES, MAX_HEADERS = 2**18, 1000  # what browsers take; a site's policy may be long
PIECE_BYTES = 2**16
LENGTH, MAX_DIGITS = "Content-Length", 19
STATUS_LINE = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})\b")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;|$)")


@dataclass(frozen=True)
class Answer:
    """Status and headers of an answer, and its body piece by piece."""

    status: int
    headers: CIMultiDict[str] | CIMultiDictProxy[str]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def ask_leniently(
    target: URL, headers: Mapping[str, str], guard: AddressGuard, *, verify_tls: bool
) -> AsyncIterator[Answer]:
    """Ask for a URL; the caller bounds the time and the body.

    Raises:
        FetchError: `bad_response`: this is no HTTP to a browser either; `private_address`.
    """
    reader, writer = await _open(target, guard, verify_tls=verify_tls)
    try:
        writer.write(_request(target, headers))
        await writer.drain()
        status, found = await _read_head(reader)
        yield Answer(status, found, _pieces(reader, found))
    finally:
        writer.transport.abort()


async def require_connection(target: URL, guard: AddressGuard) -> None:
    """Connect to the host of a URL and hang up.

    Raises:
        FetchError, OSError: it takes no connection, or has no address that may be used.
    """
    (await _connect(target, guard)).close()


async def _open(
    target: URL, guard: AddressGuard, *, verify_tls: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if target.scheme == "https" else None
    if context and not verify_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(
        sock=await _connect(target, guard),
        ssl=context,
        server_hostname=target.raw_host if context else None,
        limit=MAX_HEADER_BYTES,
    )


async def _connect(target: URL, guard: AddressGuard) -> socket.socket:
    """A connection to the first of a host's addresses that takes one."""
    host, port = target.raw_host or "", target.port or 0
    failure = OSError(f"{host} has no address")
    for address in await _addresses(host, guard):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = guard.open_socket((family, socket.SOCK_STREAM, 0, "", (address, port)))
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return connection
    raise failure


async def _addresses(host: str, guard: AddressGuard) -> list[str]:
    """The checked addresses of a host; one that is an address already is its own."""
    guard.require_public_literal(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return [found["host"] for found in await guard.resolve(host)]
    return [host]


def _request(target: URL, headers: Mapping[str, str]) -> bytes:
    host = f"[{target.raw_host}]" if ":" in (target.raw_host or "") else target.raw_host
    port = "" if target.is_default_port() else f":{target.port}"
    lines = [f"GET {target.raw_path_qs} HTTP/1.1", f"Host: {host}{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, CIMultiDict[str]]:
    """Status and headers of the answer that is final."""
    while True:
        found = STATUS_LINE.match(await _read_line(reader))
        if not found:
            raise _no_http("it does not begin with a status")
        headers = await _read_headers(reader)
        if not 100 <= int(found[1]) < 200:
            return int(found[1]), headers


async def _read_headers(reader: asyncio.StreamReader) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    num_bytes = 0
    for _ in range(MAX_HEADERS):
        line = await _read_line(reader)
        num_bytes += len(line)
        if not line:
            return headers
        if num_bytes > MAX_HEADER_BYTES:
            break
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        if colon:
            headers.add(name.strip(), value.strip())
    raise _no_http("its headers do not end")


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """A line without its end; an end without CR is one too, and so is that of the answer."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        line = error.partial
    except asyncio.LimitOverrunError as error:
        raise _no_http(f"a line is longer than {MAX_HEADER_BYTES} bytes") from error
    return line.rstrip(b"\r\n")


async def _pieces(reader: asyncio.StreamReader, headers: CIMultiDict[str]) -> AsyncIterator[bytes]:
    codings = ",".join(headers.getall("Transfer-Encoding", [])).lower().split(",")
    if "chunked" in map(str.strip, codings):
        async for piece in _chunks(reader):
            yield piece
        return
    lengths = {length.strip() for length in ",".join(headers.getall(LENGTH, [])).split(",")}
    length = lengths.pop() if len(lengths) == 1 else ""
    # Where the lengths say nothing or contradict each other, the end of the connection counts.
    left = int(length) if length.isdecimal() and len(length) < MAX_DIGITS else None
    while left is None or left > 0:
        piece = await reader.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
        if not piece and left:
            raise aiohttp.ClientPayloadError("less came than was promised")
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await _read_line(reader)
        found = CHUNK_SIZE.match(line)
        if not found:
            raise aiohttp.ClientPayloadError("the chunks end before the body")
        left = int(found[1], 16)
        if left == 0:
            return  # what follows are trailers
        while left:
            piece = await reader.read(min(left, PIECE_BYTES))
            if not piece:
                raise aiohttp.ClientPayloadError("a chunk ends before its size")
            left -= len(piece)
            yield piece
        await _read_line(reader)


def _no_http(why: str) -> FetchError:
    return FetchError(IngestReason.BAD_RESPONSE, f"the answer is not valid HTTP: {why}")
