"""Fetch http(s) URLs: checked addresses, checked redirects, bounded bodies and times."""

import asyncio
import email.utils
import re
import socket
import time
from dataclasses import dataclass
from typing import Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from components.ingest.addresses import AddressGuard, guarded_connector
from components.ingest.body import Body, Unpacker
from components.ingest.failures import FetchError
from components.ingest.settings import IngestSettings

REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED = frozenset({408, 425, 429})  # and every 5xx
READ_BYTES = 2**18
NOAI_WORDS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
UNSAFE = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")  # surrogates: bytes that are not UTF-8


@dataclass(frozen=True)
class _Redirect:
    location: str


class WebSource:
    """Fetches http and https URLs."""

    def __init__(self, guard: AddressGuard, settings: IngestSettings) -> None:
        self._guard, self._settings = guard, settings
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(guard, verify_tls=settings.verify_tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": settings.user_agent, "Accept": "image/*,*/*;q=0.5"},
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(
                total=None,  # `fetch` bounds the attempt as a whole, redirects included
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, url: str) -> bytes:
        """The body behind a URL.

        Raises:
            FetchError: why there is none.
        """
        try:
            async with asyncio.timeout(self._settings.total_timeout_s):
                return await self._follow(url)
        except Exception as error:
            raise _as_fetch_error(error) from error

    async def _follow(self, url: str) -> bytes:
        target = parse_web_url(url)
        for _ in range(self._settings.max_redirects + 1):
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            target = parse_web_url(answer.location, base=target)
        raise FetchError("too_many_redirects", f"more than {self._settings.max_redirects}")

    async def _get(self, target: URL) -> bytes | _Redirect:
        self._guard.require_public_literal(target.raw_host or "")
        async with self._session.get(target, allow_redirects=False) as response:
            if response.status in REDIRECTS and "Location" in response.headers:
                response.close()  # whatever body follows is not worth reading
                return _Redirect(response.headers["Location"])
            try:
                _require_usable(response, self._settings)
                return await self._read(response)
            except BaseException:
                response.close()  # do not drain a body that was given up
                raise

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._settings.max_bytes
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        with Body(limit) as body:
            body.announce(response.content_length)
            is_plain = encoding in ("identity", "")
            sink = body if is_plain else Unpacker(encoding, body)
            async for piece in response.content.iter_any():
                sink.write(piece)
            return body.value()


def parse_web_url(text: str, base: URL | None = None) -> URL:
    """An absolute http(s) URL without credentials; `base` is where a redirect came from.

    Raises:
        FetchError: `bad_url`, `bad_scheme`.
    """
    text = text.strip()
    if not text or UNSAFE.search(text):
        raise FetchError(
            "bad_url", "the URL holds blanks, control characters or bytes that are no text"
        )
    try:
        # Keep what the source wrote, byte for byte: signed URLs break when they are requoted.
        url = URL(text, encoded=text.isascii())
        url = base.join(url) if base else url
        is_complete = bool(url.host and url.port)
    except ValueError as error:
        raise FetchError("bad_url", str(error)) from None
    if url.scheme not in ("http", "https"):
        raise FetchError("bad_scheme", f"scheme {url.scheme[:20]!r}")
    if not is_complete or url.user or url.password:
        raise FetchError("bad_url", "the URL needs a host and no credentials")
    return url


def _require_usable(response: aiohttp.ClientResponse, settings: IngestSettings) -> None:
    status = response.status
    if status != 200:
        raise FetchError(
            f"http_{status}",
            is_transient=status in RETRIED or status >= 500,
            retry_after_s=retry_after_s(response.headers.get("Retry-After"), time.time()),
        )
    robots = response.headers.getall("X-Robots-Tag", [])
    if settings.respect_noai and forbids_ai(robots, settings.user_agent):
        raise FetchError("noai", "X-Robots-Tag")


def forbids_ai(robots_tags: list[str], user_agent: str) -> bool:
    """Whether X-Robots-Tag headers forbid the use, for everyone or for this user agent."""
    agent = user_agent.split("/")[0].strip().lower()
    for tag in robots_tags:
        name, colon, words = tag.lower().partition(":")
        is_for_us = not colon or name.strip() == agent
        if is_for_us and NOAI_WORDS & {word.strip() for word in (words or name).split(",")}:
            return True
    return False


def retry_after_s(header: str | None, now: float) -> float | None:
    """The pause a Retry-After header asks for, given as seconds or as a date."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, OverflowError):  # also years that no clock knows
        return None


def _as_fetch_error(error: Exception) -> FetchError:
    """The project's word for what went wrong in the transport.

    Raises:
        Exception: the error itself, if it is none of the transport's.
    """
    if isinstance(error, FetchError):
        return error
    if isinstance(error, TimeoutError):
        return FetchError("timeout", is_transient=True)
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("tls_error", type(error).__name__)
    if isinstance(error, aiohttp.ClientConnectorError | socket.gaierror):
        return FetchError("connection_failed", is_transient=True)
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return FetchError("bad_response", "the answer is not valid HTTP")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return FetchError("bad_url", "the HTTP library refuses the URL")
    if isinstance(error, aiohttp.ClientError | ConnectionError):
        return FetchError("connection_broken", is_transient=True)
    raise error
