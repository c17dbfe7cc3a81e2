"""Fetch http(s) URLs: checked addresses, checked redirects, bounded bodies and times.

URLs are read as browsers read them (https://url.spec.whatwg.org).
"""

import asyncio
import email.utils
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError
from yarl import URL

from components.data.ingest.addresses import AddressGuard, guarded_connector, plain_host
from components.data.ingest.body import Body, Received, is_whole, unpacking
from components.data.ingest.failures import LOCAL_ERRNOS, FetchError, WorldError, local_fault
from components.data.ingest.lenient import (
    MAX_DIGITS,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Answer,
    ask_leniently,
    require_connection,
)
from components.data.ingest.settings import IngestSettings
from data_contracts.reasons import IngestReason

REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
USABLE = frozenset(range(200, 300)) - {204, 205}  # they may have the image as their body
RETRIED = frozenset({407, 408, 421, 425, 429})  # and every 5xx
READ_BYTES = 2**18
MAX_COOKIES, MAX_COOKIE_BYTES = 50, 4096
NOAI_WORDS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
WHOLE_RANGE = re.compile(r"bytes 0-(\d+)/(\d+)")


@dataclass(frozen=True)
class _Redirect:
    location: str


def forbids_ai(robots_tags: list[str], user_agent: str) -> bool:
    """Whether X-Robots-Tag headers forbid the use, for everyone or for this user agent."""
    agent = user_agent.split("/")[0].strip().lower()
    for tag in robots_tags:
        name, colon, words = tag.lower().partition(":")
        is_for_us = not colon or name.strip() == agent
        if is_for_us and NOAI_WORDS & {word.strip() for word in (words or name).split(",")}:
            return True
    return False


@dataclass
class _Chain:
    """What is known on the way from redirect to redirect."""

    num_redirects: int = 0
    allowed_hosts: set[str] = field(default_factory=set)
    is_unverified: bool = False
    forbids_ai: bool = False
    cookies: dict[str, dict[str, str]] = field(default_factory=dict)  # host -> name -> value

    def facts(self) -> dict[str, Any]:
        """What other settings would have to allow; only what is out of the ordinary."""
        found = {
            "num_redirects": self.num_redirects,
            "allowed_hosts": sorted(self.allowed_hosts),
            "is_unverified": self.is_unverified,
            "forbids_ai": self.forbids_ai,
        }
        return {name: value for name, value in found.items() if value}

    def take_cookies(self, host: str, headers: list[str]) -> None:
        """Some sites send everybody once around to see whether cookies are kept."""
        jar = self.cookies.setdefault(host, {})
        for header in headers:
            name, separator, value = header.partition(";")[0].strip().partition("=")
            is_text = header.isascii() and header.isprintable()
            if separator and is_text and len(header) < MAX_COOKIE_BYTES and len(jar) < MAX_COOKIES:
                jar[name] = value

    def headers(self, host: str) -> dict[str, str]:
        """What is sent along to a host."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.get(host, {}).items())
        return {"Cookie": cookies} if cookies else {}


class WebSource:
    """Fetches http and https URLs."""

    def __init__(self, guard: AddressGuard, settings: IngestSettings) -> None:
        self._guard, self._settings = guard, settings
        self._headers = {"User-Agent": settings.user_agent, "Accept": "image/*,*/*;q=0.5"}
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(guard, verify_tls=settings.verify_tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(
                total=None,  # `fetch` bounds the attempt as a whole, redirects included
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, url: str) -> Received:
        """The body behind a URL.

        Raises:
            FetchError: why there is none.
            WorldError: this machine cannot go on.
        """
        try:
            async with asyncio.timeout(self._settings.total_timeout_s):
                return await self._follow(url)
        except Exception as error:
            raise _as_known_error(error) from error

    async def is_reachable(self, url: str) -> bool:
        """Whether the host of a URL takes connections; nothing is asked for."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await require_connection(parse_web_url(url), self._guard)
        except (FetchError, OSError):
            return False
        return True

    async def _follow(self, url: str) -> Received:
        target, chain = parse_web_url(url), _Chain()
        for chain.num_redirects in range(self._settings.max_redirects + 1):
            answer = await self._get(target, chain)
            if isinstance(answer, bytes):
                return Received(answer, chain.facts())
            target = parse_web_url(answer.location, base=target)
        raise FetchError(
            IngestReason.TOO_MANY_REDIRECTS, f"more than {self._settings.max_redirects}"
        )

    async def _get(self, target: URL, chain: _Chain) -> bytes | _Redirect:
        host = target.raw_host or ""
        self._guard.require_public_literal(host)
        if self._guard.is_allowed(host):
            chain.allowed_hosts.add(plain_host(host))
        chain.is_unverified |= target.scheme == "https" and not self._settings.verify_tls
        headers = chain.headers(host)
        try:
            async with self._session.get(
                target, allow_redirects=False, headers=headers
            ) as response:
                try:
                    return await self._take(_answer(response), host, chain)
                finally:
                    if not response.content.at_eof():
                        response.close()  # do not drain a body that was given up
        except (aiohttp.ClientResponseError, HttpProcessingError):
            pass  # refused by aiohttp's parser, but perhaps not by a browser
        async with ask_leniently(
            target,
            {**self._headers, **headers},
            self._guard,
            verify_tls=self._settings.verify_tls,
        ) as answer:
            return await self._take(answer, host, chain)

    async def _take(self, answer: Answer, host: str, chain: _Chain) -> bytes | _Redirect:
        chain.take_cookies(host, answer.headers.getall("Set-Cookie", []))
        if answer.status in REDIRECTS and "Location" in answer.headers:
            return _Redirect(answer.headers["Location"])  # whatever body follows is not read
        _require_usable(answer)
        robots = answer.headers.getall("X-Robots-Tag", [])
        chain.forbids_ai = forbids_ai(robots, self._settings.user_agent)
        if self._settings.respect_noai and chain.forbids_ai:
            raise FetchError(IngestReason.NOAI, "X-Robots-Tag")
        return await self._read(answer)

    async def _read(self, answer: Answer) -> bytes:
        encoding = ",".join(answer.headers.getall("Content-Encoding", []))
        with Body(self._settings.max_bytes) as body:
            length = answer.headers.get("Content-Length", "")
            body.announce(int(length) if length.isdecimal() and len(length) < MAX_DIGITS else None)
            sink = unpacking(encoding, body)
            try:
                async for piece in answer.pieces:
                    sink.write(piece)
            except aiohttp.ClientPayloadError as error:
                if isinstance(error.__cause__, TransferEncodingError):
                    raise error.__cause__ from error
                # More was promised than came: browsers show what is there, if it is all there.
                if not (body.num_bytes and is_whole(body.value())):
                    raise
            return body.value()


def _answer(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, response.headers, response.content.iter_any())


def _require_usable(response: Answer) -> None:
    status = response.status
    if status not in USABLE or (status == 206 and not _is_whole_range(response)):
        raise FetchError(
            IngestReason.HTTP_STATUS.of(status),
            is_transient=status in RETRIED or status >= 500,
            retry_after_s=retry_after_s(response.headers.get("Retry-After"), time.time()),
        )


def _is_whole_range(response: Answer) -> bool:
    """Whether a part of the image, which nobody asked for, is all of it."""
    found = WHOLE_RANGE.match(response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) + 1 == int(found[2])


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


def _as_known_error(error: Exception) -> FetchError | WorldError:
    """The project's word for what went wrong in the transport.

    Raises:
        Exception: the error itself, if it is none of the transport's.
    """
    if isinstance(error, FetchError | WorldError):
        return error
    if isinstance(error, OSError) and _errno(error) in LOCAL_ERRNOS:
        return local_fault(error, "cannot go on fetching")
    if isinstance(error, TimeoutError):
        return FetchError(IngestReason.TIMEOUT, is_transient=True)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FetchError(IngestReason.TLS_ERROR, type(error).__name__)
    if isinstance(error, aiohttp.ClientConnectorError | socket.gaierror):
        return FetchError(IngestReason.CONNECTION_FAILED, is_transient=True)
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return FetchError(IngestReason.BAD_RESPONSE, "the answer is not valid HTTP")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return FetchError(IngestReason.BAD_URL, "the HTTP library refuses the URL")
    if isinstance(error, aiohttp.ClientError | OSError):
        return FetchError(IngestReason.CONNECTION_BROKEN, is_transient=True)
    raise error


def _errno(error: OSError) -> int | None:
    inner = getattr(error, "os_error", error)
    return inner.errno if isinstance(inner, OSError) else None


LEFT_OUT = str.maketrans("", "", "\t\r\n")
AROUND = "".join(map(chr, range(0x21)))  # blanks and control characters
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
WEB_SCHEMES = frozenset({"http", "https"})
# What stays as it is: a signed URL breaks when its quoting is changed, be it odd or half done.
AS_WRITTEN = "!#$%&'()*+,/:;=?@[]~|^"
BAD_IN_HOST = re.compile(r"[\x00-\x20\x7f%<>^`{|}\"\ud800-\udfff]")


def parse_web_url(text: str, base: URL | None = None) -> URL:
    """An absolute http(s) URL without credentials; `base` is where a redirect came from.

    Bytes of a Location header that are no text are the surrogates of `surrogateescape`.

    Raises:
        FetchError: `bad_url`, `bad_scheme`.
    """
    scheme, host, rest = _parts(text, base)
    try:
        if host is None:
            assert base is not None
            url = base.join(URL(rest, encoded=True))
        else:
            url = URL(f"{scheme}://{host}", encoded=host.isascii())
            # A host that is no ASCII is made so; the rest stays as it was written.
            url = URL(f"{scheme}://{url.raw_authority}{rest}", encoded=True)
        is_complete = bool(url.host and url.port)
    except (ValueError, UnicodeError) as error:
        raise FetchError(IngestReason.BAD_URL, str(error)) from None
    if not is_complete or url.user or url.password:
        raise FetchError(IngestReason.BAD_URL, "the URL needs a host and no credentials")
    return url


def _parts(text: str, base: URL | None) -> tuple[str, str | None, str]:
    """Scheme, authority (None: that of the base) and the rest, quoted where it has to be."""
    text = text.translate(LEFT_OUT).strip(AROUND)
    if not text:
        raise FetchError(IngestReason.BAD_URL, "the URL is empty")
    found = SCHEME.match(text)
    if not found and base is None:
        raise FetchError(IngestReason.BAD_SCHEME, "the URL names no scheme")
    scheme = (found[1] if found else base.scheme if base else "").lower()
    if scheme not in WEB_SCHEMES:
        raise FetchError(IngestReason.BAD_SCHEME, f"scheme {scheme[:20]!r}")
    rest = text[found.end() :] if found else text
    end = next((place for place, letter in enumerate(rest) if letter in "?#"), len(rest))
    path, query = rest[:end].replace("\\", "/"), rest[end:]
    if not found and not path.startswith("//"):
        return scheme, None, _quoted(path + query)
    host, slash, path = path.lstrip("/").partition("/")
    if not host or BAD_IN_HOST.search(host):
        raise FetchError(
            IngestReason.BAD_URL, "the URL's host holds blanks or characters that no host has"
        )
    return scheme, host.lower(), _quoted(slash + path + query)


def _quoted(text: str) -> str:
    """Only what cannot be sent is quoted: blanks, quotes, control characters, all but ASCII."""
    try:
        return quote(text.encode("utf-8", "surrogateescape"), safe=AS_WRITTEN)
    except UnicodeError:
        raise FetchError(IngestReason.BAD_URL, "the URL holds half of a character") from None
