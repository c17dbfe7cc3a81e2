"""Kubeflow Pipelines' REST API (v2beta1) over HTTP, without kfp: for tasks, triggers and commands.

What is done on a server is a plan: a generator that yields requests and pauses, and gets answers.
`Client` carries a plan out, `AsyncClient` does the same inside an event loop; so there is one logic
for both. A plan tells three failures apart, because only one of them leaves a question open:
nothing was sent (`AwayError`), the answer was lost (`LostError`), the server said no
(`RefusedError`).
"""

import asyncio
import json
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx

from components.core.errors import PipelineError

API = "/apis/v2beta1"
REQUEST_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MAX_LINE_CHARS = 2_000  # of a log
T = TypeVar("T")


class KubeflowError(PipelineError):
    """The Kubeflow server refused, or a run on it failed."""


class RefusedError(KubeflowError):
    """The server answered that it did not do what it was asked; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AwayError(KubeflowError):
    """The server does not answer at the moment, and has not got the request."""


class LostError(AwayError):
    """No answer came, or an error of the server's own: it may have done what it was asked."""


@dataclass(frozen=True)
class Server:
    """A Kubeflow Pipelines server, and as whom we speak to it.

    Args:
        url: address of its API, e.g. `http://ml-pipeline-ui.kubeflow:80`.
        token_file: file with a bearer token, read again when the server refuses it.
        ca_file: certificates that the server's is checked with; empty: those of the system.
        namespace: of the user, where several share the server; empty on a server of one.
        service_account: Kubernetes account of a run's pods; empty: the server's default.
        pipeline_root: where artifacts go, e.g. `s3://bucket/pixclip`; empty: the server's default.
        page_url: address of its web page, for links; empty: `url`.
    """

    url: str
    token_file: str = ""
    ca_file: str = ""
    namespace: str = ""
    service_account: str = ""
    pipeline_root: str = ""
    page_url: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise KubeflowError(f"address of Kubeflow Pipelines: '{self.url}' is no http(s) URL")

    def run_url(self, run_id: str) -> str:
        """The page of a run."""
        return f"{(self.page_url or self.url).rstrip('/')}/#/runs/details/{run_id}"


@dataclass(frozen=True)
class Ask:
    """A request; its answer is JSON, or with `num_lines` the last lines of a text."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    upload: bytes | None = None
    num_lines: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Pause:
    """A time without requests."""

    seconds: float


Plan = Generator[Ask | Pause, Any, T]


def get(path: str, query: Mapping[str, str] | None = None) -> Ask:
    """A request for something below the API's path."""
    return Ask("GET", f"{API}{path}", query or {})


def post(path: str, body: object = None, query: Mapping[str, str] | None = None) -> Ask:
    """A request to make or to do something."""
    return Ask("POST", f"{API}{path}", query or {}, body)


def listed(key: str, value: str, namespace: str = "") -> dict[str, str]:
    """The query of a list: its newest entry of which a field has a value."""
    predicate = {"operation": "EQUALS", "key": key, "string_value": value}
    query = {"filter": json.dumps({"predicates": [predicate]})}
    owner = {"namespace": namespace} if namespace else {}  # a server of one refuses it
    return {"page_size": "1", "sort_by": "created_at desc", **query, **owner}


def patiently(
    ask: Ask,
    patience_s: float,
    say: Callable[[str], None] = lambda _: None,
    *,
    is_repeatable: bool = True,
) -> Plan[Any]:
    """The answer to a request, waiting for a server that is away.

    Args:
        is_repeatable: whether it may be sent again although the server may have got it.

    Raises:
        LostError: the answer was lost, and it is not repeatable.
        AwayError: the server was away for all of `patience_s`.
        RefusedError: it refused.
    """
    pauses, end = backoff(), time.monotonic() + patience_s
    while True:
        try:
            return (yield ask)
        except AwayError as error:
            pause = next(pauses)
            is_lost = isinstance(error, LostError) and not is_repeatable
            if is_lost or time.monotonic() + pause > end:
                raise
            say(f"{error}; asking again in {pause:.1f} s")
            yield Pause(pause)


def backoff(first_s: float | None = None) -> Iterator[float]:
    """Pauses in seconds that grow, with jitter: clients of one server must not come in step."""
    pause = FIRST_PAUSE_S if first_s is None else first_s
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        pause = min(2 * pause, LONGEST_PAUSE_S)


class _Sender:
    """What both clients have: headers, the token, and what an answer means."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._token = _read_token(server)

    def settings(self) -> dict[str, Any]:
        verify: ssl.SSLContext | bool = True
        if self.server.ca_file:
            try:
                verify = ssl.create_default_context(cafile=self.server.ca_file)
            except OSError as error:
                raise KubeflowError(
                    f"CA file {self.server.ca_file} cannot be read: {error}"
                ) from None
        return {"base_url": self.server.url, "timeout": REQUEST_TIMEOUT, "verify": verify}

    def request(self, http: Any, ask: Ask) -> httpx.Request:
        content: dict[str, Any] = {}
        if ask.body is not None:
            content["json"] = ask.body
        if ask.upload is not None:
            content["files"] = {"uploadfile": ("pipeline.yaml", ask.upload)}
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        query = dict(ask.query)
        request: httpx.Request = http.build_request(
            ask.method, ask.path, params=query, headers=headers, **content
        )
        return request

    def is_to_repeat(self, response: httpx.Response) -> bool:
        """Whether the token was refused, and the file is to be read again: tokens are rotated."""
        if response.status_code != HTTPStatus.UNAUTHORIZED or not self.server.token_file:
            return False
        self._token = _read_token(self.server)
        return True

    def content(self, ask: Ask, response: httpx.Response, lines: "deque[str]") -> Any:
        """What a checked answer holds."""
        if ask.num_lines:
            return "\n".join(lines)
        try:
            return response.json()
        except ValueError:
            raise RefusedError(
                f"{ask} at {self.server.url}: the answer is no JSON, perhaps a page for people to "
                "log in; name the API's address and a token file",
                response.status_code,
            ) from None

    def check(self, ask: Ask, response: httpx.Response) -> None:
        """Raise what a status means."""
        status = response.status_code
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return
        told = f"{ask} at {self.server.url}: {_reason(response)}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise AwayError(told)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise LostError(told)
        raise RefusedError(told, status)

    def failure(self, ask: Ask, error: httpx.TransportError) -> AwayError:
        """What a failure of the network means: whether the server may have got the request."""
        is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        kind = AwayError if is_unsent else LostError
        return kind(f"{ask}: {self.server.url} does not answer: {error or type(error).__name__}")


class Client:
    """Carries out plans on a server; to be used in a `with` statement."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._sender = _Sender(server)

    def __enter__(self) -> "Client":
        self._http = httpx.Client(**self._sender.settings())
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def run(self, plan: Plan[T]) -> T:
        """Carry out a plan, and give its result."""
        answer, error = None, None
        while True:
            try:
                wanted = plan.throw(error) if error else plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, error = None, None
            if isinstance(wanted, Pause):
                time.sleep(wanted.seconds)
                continue
            try:
                answer = self._send(wanted)
            except KubeflowError as told:
                error = told

    def _send(self, ask: Ask, is_second: bool = False) -> Any:
        lines: deque[str] = deque(maxlen=ask.num_lines)
        try:
            response = self._http.send(self._sender.request(self._http, ask), stream=True)
            try:
                if ask.num_lines and response.is_success:
                    lines.extend(line[:MAX_LINE_CHARS] for line in response.iter_lines())
                else:
                    response.read()
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._sender.failure(ask, error) from error
        if not is_second and self._sender.is_to_repeat(response):
            return self._send(ask, is_second=True)
        self._sender.check(ask, response)
        return self._sender.content(ask, response, lines)


class AsyncClient:
    """The same inside an event loop; to be used in an `async with` statement."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._sender = _Sender(server)

    async def __aenter__(self) -> "AsyncClient":
        self._http = httpx.AsyncClient(**self._sender.settings())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def run(self, plan: Plan[T]) -> T:
        """Carry out a plan, and give its result."""
        answer, error = None, None
        while True:
            try:
                wanted = plan.throw(error) if error else plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, error = None, None
            if isinstance(wanted, Pause):
                await asyncio.sleep(wanted.seconds)
                continue
            try:
                answer = await self._send(wanted)
            except KubeflowError as told:
                error = told

    async def _send(self, ask: Ask, is_second: bool = False) -> Any:
        lines: deque[str] = deque(maxlen=ask.num_lines)
        try:
            response = await self._http.send(self._sender.request(self._http, ask), stream=True)
            try:
                if ask.num_lines and response.is_success:
                    async for line in response.aiter_lines():
                        lines.append(line[:MAX_LINE_CHARS])
                else:
                    await response.aread()
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise self._sender.failure(ask, error) from error
        if not is_second and self._sender.is_to_repeat(response):
            return await self._send(ask, is_second=True)
        self._sender.check(ask, response)
        return self._sender.content(ask, response, lines)


def _read_token(server: Server) -> str:
    if not server.token_file:
        return ""
    try:
        return Path(server.token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise KubeflowError(
            f"token file {server.token_file} cannot be read: {error.strerror}"
        ) from None


def _reason(response: httpx.Response) -> str:
    """The server's own words: KFP's messages are JSON, those of what stands before it are not."""
    try:
        content = json.loads(response.text)
        return str(content.get("message") or content["error_message"])
    except (ValueError, KeyError, AttributeError):
        return f"{response.status_code} {response.reason_phrase}"
