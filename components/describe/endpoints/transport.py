"""One POST to an endpoint and what it came to; nothing of it shows a key.

aiohttp, not the openai package: one POST needs no SDK, and at thousands of requests a minute the
SDK's time for a request (over 4 ms of CPU, aiohttp's is below 1 ms) is missing for the pictures.
"""

import json
import time
from dataclasses import replace

import aiohttp

from components.describe.endpoints.replies import (
    MAX_REPLY_BYTES,
    HttpReply,
    TooLargeError,
    decompressed,
)
from components.describe.endpoints.rotation import Endpoint
from components.describe.endpoints.secrets import Secrets
from components.describe.endpoints.verdicts import MAX_SAID_CHARS, Kind, Verdict, judge_reply
from components.describe.settings import DescribeSettings
from components.describe.text import one_line
from components.kernel.credentials import without_credentials

MAX_HEADER_BYTES = 64 << 10  # proxies in front of servers add policies and cookies


class Transport:
    """The connections to all endpoints."""

    def __init__(self, settings: DescribeSettings, secrets: Secrets) -> None:
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
        # Why it refuses a request is told by a true one.
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
