"""One POST to an endpoint and what it came to; nothing of it shows a key.

aiohttp, not the openai package: one POST needs no SDK, and at thousands of requests a minute the
SDK's time for a request (over 4 ms of CPU, aiohttp's is below 1 ms) is missing for the pictures.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import aiohttp

from components.core.credentials import without_credentials
from components.data.llm.prompt import one_line
from components.data.llm.replies import MAX_REPLY_BYTES, HttpReply, TooLargeError, decompressed
from components.data.llm.rotation import Endpoint
from components.data.llm.settings import ClientSettings
from components.data.llm.verdicts import MAX_SAID_CHARS, Kind, Verdict, judge_reply

MAX_HEADER_BYTES = 64 << 10  # proxies in front of servers add policies and cookies


# Keys that a server says back: found in every spelling, and shown in none.
#
# Texts are compared after decoding: of a key and of a text only letters and digits count, after
# JSON, percent and HTML escapes were undone. So a key is found with `\/` for `/`, with `%2D` for
# `-`, in other case, with blanks or line breaks inside, in base64 or hexadecimal, and in pieces.


class Secrets:
    """The keys of all stages."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = frozenset(filter(None, keys))

    def mask(self, text: str) -> str:
        """A text that is to be quoted, without any key; withheld if it holds one in disguise."""
        for key in self._keys:
            text = text.replace(key, "(the key)")
        return WITHHELD if self._holds(text, self._quoted_pieces) else text

    def are_in(self, text: str) -> bool:
        """Whether an answer holds a key, or most of one."""
        return self._holds(text, self._answered_pieces)

    @cached_property
    def _quoted_pieces(self) -> frozenset[str]:
        return frozenset(
            piece
            for key in self._keys
            for spelling in _spellings(key)
            for piece in _pieces(spelling, -(-len(spelling) // NUM_PIECES), MIN_PIECE_CHARS)
        )

    @cached_property
    def _answered_pieces(self) -> frozenset[str]:
        keys = [key for key in self._keys if len(_plain(key)) >= MIN_KEY_CHARS]
        wordy = {
            piece
            for key in keys
            for spelling in _spellings(key)
            for piece in _pieces(spelling, -(-len(spelling) // 2), MIN_WORD_CHARS)
        }
        return frozenset(wordy | {piece for piece in self._quoted_pieces if _has_digit(piece)})

    def _holds(self, text: str, pieces: frozenset[str]) -> bool:
        if not pieces:
            return False
        readings = {_plain(text)}
        for _ in range(MAX_ROUNDS):
            decoded = _DECIMAL.sub(_decimal, _ESCAPE.sub(_character, _BLANK.sub(" ", text)))
            if decoded == text:
                break
            text = decoded
            readings.add(_plain(text))
        return any(piece in reading for reading in readings for piece in pieces)


class Transport:
    """The connections to all endpoints."""

    def __init__(self, settings: ClientSettings, secrets: Secrets) -> None:
        self._settings, self._secrets = settings, secrets

    async def open(self) -> None:
        """Get ready."""
        settings = self._settings
        timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s, sock_connect=settings.connect_timeout_s
        )
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small reply must not become a large one
            trust_env=settings.use_proxy,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, endpoint: Endpoint, body: bytes) -> Verdict:
        """Send a request once."""
        sent_at = time.monotonic()
        try:
            reply = await self._post(endpoint, body)
            verdict = judge_reply(reply, time.monotonic() - sent_at)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            verdict = Verdict(Kind.UNREACHABLE, str(error))
        except aiohttp.InvalidURL as error:
            verdict = Verdict(Kind.UNSERVED, f"'{error.url}' is no address")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            said = str(error)[: 10 * MAX_SAID_CHARS]  # may quote what the server sent
            verdict = Verdict(Kind.FAULTY, f"{type(error).__name__} {said}".strip())
        return self._without_secrets(verdict)

    async def is_alive(self, endpoint: Endpoint) -> bool:
        """Whether it answers one token: a list of models comes even from a server that hangs."""
        verdict = await self.send(
            endpoint, self.ping(endpoint.probe_model, endpoint.token_limit_name)
        )
        # Why it refuses requests shows when a real one is sent.
        return verdict.kind in (Kind.ANSWERED, Kind.REFUSED, Kind.UNSERVED)

    @staticmethod
    def ping(model: str, token_limit_name: str) -> bytes:
        """The body of a request for one token."""
        messages = [{"role": "user", "content": "ping"}]
        return json.dumps({"model": model, "messages": messages, token_limit_name: 1}).encode()

    async def _post(self, endpoint: Endpoint, body: bytes) -> HttpReply:
        async with self._session.post(
            f"{endpoint.url}/chat/completions",
            data=body,
            headers=endpoint.headers,
            allow_redirects=False,  # a request carries a key: it goes where it was told to go
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise TooLargeError(f"the reply is over {MAX_REPLY_BYTES} bytes")
            encoding = response.headers.get("Content-Encoding", "")
            return HttpReply(
                response.status,
                decompressed(bytes(content), encoding),
                response.headers.get("Retry-After"),
                encoding,
                response.charset or "",
            )

    def _without_secrets(self, verdict: Verdict) -> Verdict:
        answer = verdict.answer
        if answer and self._secrets.are_in(f"{answer.content} {answer.finish_reason}"):
            return Verdict(Kind.FAULTY, "the answer quotes the API key")
        status, separator, said = verdict.detail.partition(": ")  # the status tells no secret
        if not status.startswith("status "):
            status, separator, said = "", "", verdict.detail
        said = one_line(without_credentials(self._secrets.mask(said)))[:MAX_SAID_CHARS]
        return replace(verdict, detail=f"{status}{separator}{said}")


MIN_KEY_CHARS = 8  # shorter keys (`EMPTY`) are words that answers may hold
NUM_PIECES, MIN_PIECE_CHARS = 3, 6  # a key is found by as much of it, also where it is in pieces
MIN_WORD_CHARS = 12  # of a piece without digits in an answer: a word of a caption is no key
LONG_PIECE_CHARS = 24  # from here on some pieces stand for all: each of them holds one of these
MAX_ROUNDS = 3  # of escapes inside escapes
WITHHELD = "(withheld: it quotes the API key)"
_ESCAPE = re.compile(
    r"\\+u([0-9a-f]{4})|\\+x([0-9a-f]{2})|%([0-9a-f]{2})|&#x([0-9a-f]{1,5});", re.I
)
_BLANK = re.compile(r"\\+[nrtbf]")
_DECIMAL = re.compile(r"&#([0-9]{1,6});")


def _pieces(spelling: str, size: int, min_chars: int) -> Iterable[str]:
    """Pieces of a key such that every piece of that size holds one of them."""
    size = min(max(size, min_chars), len(spelling))
    if size >= LONG_PIECE_CHARS:
        size //= 2
        return [spelling[i : i + size] for i in range(0, len(spelling) - size + 1, size)]
    if size < 4:
        return []
    return [spelling[i : i + size] for i in range(len(spelling) - size + 1)]


def _has_digit(piece: str) -> bool:
    return any(char.isdigit() for char in piece)


def _spellings(key: str) -> Iterable[str]:
    data = key.encode()
    yield _plain(key)
    yield binascii.hexlify(data).decode()
    for before in (b"", b".", b".."):  # base64 depends on where in a group of three a key starts
        encoded = base64.b64encode(before + data).decode()
        yield _plain(encoded[4 if before else 0 : -4])


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _character(escape: re.Match[str]) -> str:
    return _spelled(int(next(filter(None, escape.groups())), 16))


def _decimal(escape: re.Match[str]) -> str:
    return _spelled(int(escape[1]))


def _spelled(code: int) -> str:
    return chr(code) if code < 0x110000 else ""
