"""One chat request until it is answered: time-outs, retries, and what each failure means.

aiohttp, not the openai package: one POST needs no SDK, and at thousands of requests a minute the
SDK's time for a request (over 4 ms of CPU, aiohttp's is below 1 ms) is missing for the pictures.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from typing import Self

import aiohttp
from pydantic import ValidationError

from components.describe.endpoints.cache import RawAnswer
from components.describe.endpoints.gates import DroppedError, Problem
from components.describe.endpoints.replies import HttpReply, raw_answer, retry_after_s
from components.describe.endpoints.rotation import Endpoint, Rotation
from components.describe.endpoints.text import one_line
from components.describe.settings import DescribeSettings, StageName
from components.kernel.errors import PipelineError, SettingsError

MAX_REPLY_BYTES = 4 << 20
OVERLOAD_STATUSES = frozenset({429, 503, 529})
MISCONFIGURED_STATUSES = frozenset({401, 403, 404, 405})


class EndpointError(PipelineError):
    """The endpoints of a stage do not answer, or refuse all requests; answers so far are kept."""


@dataclass(frozen=True)
class _Setback:
    """A try without an answer; the request may be to blame if it got to a server."""

    detail: str
    may_be_to_blame: bool


class ChatClient:
    """Asks the endpoints of the stages; use it as an async context manager."""

    def __init__(self, settings: DescribeSettings) -> None:
        self._settings = settings
        self._stages = _stages(settings)
        self._rotation = Rotation(self._is_alive, settings.probe_interval_s)

    async def __aenter__(self) -> Self:
        settings = self._settings
        timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s, sock_connect=settings.connect_timeout_s
        )
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            auto_decompress=False,  # a small reply must not become a large one
            trust_env=settings.use_proxy,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rotation.close()
        await self._session.close()

    @property
    def num_places(self) -> int:
        """Requests that can be in flight at all endpoints together."""
        endpoints = {id(e): e for stage in self._stages.values() for e in stage}
        return sum(endpoint.max_in_flight for endpoint in endpoints.values())

    async def ask(self, name: StageName, body: bytes) -> RawAnswer:
        """Send a request until it is answered.

        Raises:
            DroppedError: this request is refused or fails again and again.
            EndpointError: the stage has no endpoint that answers.
        """
        asked_at, num_failures = time.monotonic(), 0
        while True:
            endpoint = await self._place(name, asked_at)
            result = await self._try_once(endpoint, body)
            if isinstance(result, RawAnswer):
                return result
            if result.may_be_to_blame:
                # While nobody gets an answer, it is the server: the request waits for it.
                num_failures += self._last_success(name) > asked_at
                if num_failures >= self._settings.max_attempts:
                    detail = f"{num_failures} tries; {result.detail}"
                    raise DroppedError(Problem("no_answer", detail))
                await asyncio.sleep(self._rotation.backoff_s(max(num_failures, 1)))

    def _last_success(self, name: StageName) -> float:
        return max(endpoint.last_success for endpoint in self._stages[name])

    async def _place(self, name: StageName, asked_at: float) -> Endpoint:
        endpoints = self._stages[name]
        while True:
            quiet_since = max(self._last_success(name), asked_at)
            left_s = quiet_since + self._settings.give_up_after_s - time.monotonic()
            if left_s <= 0:
                urls = ", ".join(endpoint.url for endpoint in endpoints)
                raise EndpointError(
                    f"describe.{name}: no answer from {urls} for "
                    f"{self._settings.give_up_after_s:g} s. Every answer received so far is kept: "
                    "bring the servers back and run the step again."
                )
            try:
                return await self._rotation.acquire(endpoints, left_s)
            except TimeoutError:
                continue  # others may have been answered meanwhile

    async def _try_once(self, endpoint: Endpoint, body: bytes) -> RawAnswer | _Setback:
        sent_at = time.monotonic()
        try:
            reply = await self._post(endpoint, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return self._failed(endpoint, str(error), may_be_to_blame=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._failed(endpoint, f"{type(error).__name__} {error}")
        except BaseException:
            self._rotation.unused(endpoint)
            raise
        return self._read(endpoint, reply, sent_at)

    def _read(self, endpoint: Endpoint, reply: HttpReply, sent_at: float) -> RawAnswer | _Setback:
        if reply.status in OVERLOAD_STATUSES:
            self._rotation.overloaded(endpoint, sent_at, retry_after_s(reply.retry_after))
            return _Setback(f"{endpoint.url}: status {reply.status}", may_be_to_blame=False)
        if reply.status >= 500 or reply.status == 408:
            return self._failed(endpoint, f"status {reply.status}")
        if reply.status != 200:
            self._rotation.unused(endpoint)
            raise _refusal(endpoint, reply)
        try:
            answer = raw_answer(reply.body, time.monotonic() - sent_at)
        except ValidationError as error:
            return self._failed(endpoint, f"no chat completion: {error.errors()[0]['msg']}")
        self._rotation.succeeded(endpoint)
        return answer

    def _failed(self, endpoint: Endpoint, why: str, may_be_to_blame: bool = True) -> _Setback:
        self._rotation.failed(endpoint, why)
        return _Setback(f"{endpoint.url}: {why}", may_be_to_blame)

    async def _post(self, endpoint: Endpoint, body: bytes) -> HttpReply:
        async with self._session.post(
            f"{endpoint.url}/chat/completions",
            data=body,
            headers=endpoint.headers,
            allow_redirects=False,  # a request carries a key: it goes where it was told to go
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise aiohttp.ClientPayloadError("the reply is compressed, which was not asked for")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise aiohttp.ClientPayloadError(f"the reply is over {MAX_REPLY_BYTES} bytes")
            return HttpReply(response.status, bytes(content), response.headers.get("Retry-After"))

    async def _is_alive(self, endpoint: Endpoint) -> bool:
        """Whether it answers one token: a list of models comes even from a server that hangs."""
        ping = {
            "model": endpoint.probe_model,
            "messages": [{"role": "user", "content": "ping"}],
            "max_tokens": 1,
        }
        try:
            reply = await self._post(endpoint, json.dumps(ping).encode())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return reply.status < 500 and reply.status not in OVERLOAD_STATUSES


def _refusal(endpoint: Endpoint, reply: HttpReply) -> Exception:
    # Some servers quote the request; what they say ends up in the quarantine and in the report.
    key = endpoint.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    body = reply.body.replace(key, b"(the key)") if key else reply.body
    said = one_line(body[:600].decode("utf-8", "replace"))[:300]
    if reply.status in MISCONFIGURED_STATUSES or reply.status < 400:
        return EndpointError(
            f"{endpoint.url} answers status {reply.status}: {said}. Check the stage's endpoints, "
            "model and api_key_env."
        )
    return DroppedError(Problem("request_refused", f"status {reply.status}: {said}"))


def _stages(settings: DescribeSettings) -> dict[StageName, tuple[Endpoint, ...]]:
    """The endpoints of each stage; one URL with one key is one endpoint, whoever asks it."""
    known: dict[tuple[str, str], Endpoint] = {}
    for name, stage in settings.stages.items():
        headers = _headers(name, stage.api_key_env)
        for url in stage.endpoints:
            endpoint = Endpoint(url, settings.concurrency, headers, probe_model=stage.model)
            known.setdefault((url, stage.api_key_env), endpoint)
    return {
        name: tuple(known[url, stage.api_key_env] for url in dict.fromkeys(stage.endpoints))
        for name, stage in settings.stages.items()
    }


def _headers(name: StageName, api_key_env: str) -> dict[str, str]:
    common = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if not api_key_env:
        return common
    key = os.environ.get(api_key_env)
    if not key:
        raise SettingsError(
            f"describe.{name}.api_key_env: the environment has no variable {api_key_env}"
        )
    return {**common, "Authorization": f"Bearer {key}"}
