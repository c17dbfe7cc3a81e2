"""One chat request until it is answered: time-outs, retries, and what each failure means.

A request is given up only where it is to blame: where its server serves others, who are asked
for (a `sample`) where nobody else was served meanwhile. Everything else is the world's fault: it
is waited for, or ends the step, and no region is lost for it.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from components.core.errors import PipelineError, SettingsError
from components.data.llm.cache import RawAnswer
from components.data.llm.gates import REFUSAL, DroppedError, Problem
from components.data.llm.prompt import one_line
from components.data.llm.rotation import Endpoint, Rotation
from components.data.llm.settings import ClientSettings, StageName
from components.data.llm.transport import Secrets, Transport
from components.data.llm.verdicts import Kind, Verdict
from data_contracts.reasons import DescribeReason

# Of a stage, bodies of a request about nothing in particular: the cheap one, the whole one.
Samples = Mapping[StageName, Callable[[], Sequence[bytes]]]
LONGEST_FAREWELL_S = 20.0  # for answers that are on their way when the step stops: they are paid
KEPT = "Every answer received so far is kept"
ADVICE = (
    (r"max_completion_tokens|max_tokens\W{1,3}(is )?(not|un)", "token_limit_name"),
    (r"\b(temperature|top_p|seed)\b", "unsent"),
    (r"response_format|json_schema|structured|guided", "is_structured"),
)


class EndpointError(PipelineError):
    """The endpoints of a stage do not answer, or refuse all requests; answers so far are kept."""


@dataclass(frozen=True)
class Taker:
    """Who asks."""

    fits: Callable[[RawAnswer], bool]  # whether an answer is of the form that was asked for
    keep: Callable[[RawAnswer], None]  # gets the answer before anything can go wrong

    def may_be_canned(self, answer: RawAnswer) -> bool:
        """Whether it can be a text that a server gives to everybody, and not a model's own."""
        is_cut = answer.finish_reason in ("length", "content_filter")
        return not (is_cut or REFUSAL.search(answer.content[:300]) or self.fits(answer))


@dataclass
class _Case:
    """A request on its way, and what was found about it."""

    name: StageName
    body: bytes
    taker: Taker
    asked_at: float
    num_failures: int = 0
    served_others: frozenset[Endpoint] = frozenset()  # although they had failed with this one


class ChatClient:
    """Asks the endpoints of the stages; use it as an async context manager."""

    def __init__(self, settings: ClientSettings, samples: Samples | None = None) -> None:
        self._settings, self._samples = settings, samples or {}
        self._stages, self.secrets = endpoints_of(settings)
        self._transport = Transport(settings, self.secrets)
        self._rotation = Rotation(self._transport.is_alive, settings.probe_interval_s)
        self._answered_at = dict.fromkeys(self._stages, 0.0)
        self._last_setback = dict.fromkeys(self._stages, "")
        self._served_at: dict[tuple[Endpoint, StageName], float] = {}
        self._sample_locks: dict[tuple[Endpoint, StageName], asyncio.Lock] = {}
        self._late: dict[asyncio.Task[Verdict], Taker] = {}

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rotation.close()
        await self._keep_late_answers()
        await self._transport.close()

    @property
    def num_places(self) -> int:
        """Requests that can be in flight at all endpoints together."""
        endpoints = {id(e): e for stage in self._stages.values() for e in stage}
        return sum(endpoint.max_in_flight for endpoint in endpoints.values())

    async def ask(self, name: StageName, body: bytes, taker: Taker) -> RawAnswer:
        """Send a request until it is answered.

        Raises:
            DroppedError: this request is refused or fails again and again, and others do not.
            EndpointError: the stage has no endpoint that answers, or one that serves nobody.
        """
        case = _Case(name, body, taker, time.monotonic())
        while True:
            endpoint = await self._place(case)
            sent_at = time.monotonic()
            verdict = await self._try(case.name, endpoint, body, taker)
            if verdict.answer:
                if await self._is_believed(case, endpoint, verdict.answer, sent_at):
                    self._answered_at[name] = time.monotonic()
                    taker.keep(verdict.answer)
                    return verdict.answer
            elif verdict.kind is Kind.REFUSED:
                await self._blame_or_go_on(case, endpoint, verdict, sent_at)
            elif verdict.kind is Kind.FAULTY:
                await self._blame_or_wait(case, endpoint, verdict, sent_at)

    async def _is_believed(
        self, case: _Case, endpoint: Endpoint, answer: RawAnswer, sent_at: float
    ) -> bool:
        """Whether it is an answer, and not what its server says whatever it is asked."""
        if not case.taker.may_be_canned(answer):
            return True
        sample = await self._sample(case.name, endpoint, sent_at)
        if sample is None:
            return True
        if sample.answer and sample.answer.content != answer.content:
            return True
        if sample.answer:
            said = f"the same text whatever it is asked: {one_line(answer.content[:300])}"
            self._note_setback(case.name, endpoint, said)
        await self._pause(case)
        return False

    async def _blame_or_go_on(
        self, case: _Case, endpoint: Endpoint, verdict: Verdict, sent_at: float
    ) -> None:
        """Give a refused request up, or find out that its server refuses everybody."""
        sample = await self._sample(case.name, endpoint, sent_at)
        if sample is None or sample.kind is Kind.ANSWERED:
            raise DroppedError(Problem(DescribeReason.REQUEST_REFUSED, verdict.detail))
        if sample.kind is Kind.REFUSED:
            said = sample.detail.rstrip(".")
            advice = _advice(case.name, said) or "mend the server or the stage's settings"
            raise EndpointError(
                f"describe.{case.name}: {endpoint.url} refuses every request, also a sample that "
                f"is about no region: {said}. {KEPT}: {advice} and run the step again."
            )
        await self._pause(case)

    async def _blame_or_wait(
        self, case: _Case, endpoint: Endpoint, verdict: Verdict, sent_at: float
    ) -> None:
        """Give up a request that failed although its server served others just before."""
        has_failed_enough = case.num_failures >= self._settings.max_attempts - 1
        if has_failed_enough and endpoint in case.served_others:
            raise DroppedError(
                Problem(DescribeReason.NO_ANSWER, f"again and again: {verdict.detail}")
            )
        if has_failed_enough or self._left_s(case) < self._settings.give_up_after_s / 2:
            sample = await self._sample(case.name, endpoint, sent_at)
            if sample is None or sample.kind is Kind.ANSWERED:
                case.served_others |= {endpoint}
                self._answered_at[case.name] = time.monotonic()
        await self._pause(case)

    async def _pause(self, case: _Case) -> None:
        case.num_failures += 1
        backoff_s = self._rotation.backoff_s(case.num_failures)
        await asyncio.sleep(min(backoff_s, max(self._left_s(case), 0.0)))

    async def _sample(self, name: StageName, endpoint: Endpoint, since: float) -> Verdict | None:
        """What an endpoint makes of a request about nothing; None if it served others meanwhile."""
        lock = self._sample_locks.setdefault((endpoint, name), asyncio.Lock())
        async with lock:
            if self._served_at.get((endpoint, name), 0.0) > since:
                return None
            verdict = Verdict(Kind.UNREACHABLE, "nobody knows")
            for body in self._sample_bodies(name):
                if endpoint.is_down:
                    break
                try:
                    await self._rotation.acquire((endpoint,), self._settings.request_timeout_s)
                except TimeoutError:
                    break
                verdict = await self._try(name, endpoint, body)
                if verdict.kind is not Kind.REFUSED:
                    break
            return verdict

    def _sample_bodies(self, name: StageName) -> Sequence[bytes]:
        if name in self._samples:
            return self._samples[name]()
        stage = self._settings.stages[name]
        return (self._transport.ping(stage.model, stage.token_limit_name),)

    async def _place(self, case: _Case) -> Endpoint:
        endpoints = self._stages[case.name]
        while True:
            left_s = self._left_s(case)
            if left_s <= 0:
                raise EndpointError(self._farewell(case.name, endpoints))
            try:
                return await self._rotation.acquire(endpoints, left_s)
            except TimeoutError:
                continue  # others may have been answered meanwhile

    def _left_s(self, case: _Case) -> float:
        """Seconds until the stage is given up, unless somebody is answered before."""
        quiet_since = max(self._answered_at[case.name], case.asked_at)
        return quiet_since + self._settings.give_up_after_s - time.monotonic()

    def _farewell(self, name: StageName, endpoints: Sequence[Endpoint]) -> str:
        urls = ", ".join(endpoint.url for endpoint in endpoints)
        last = self._last_setback[name]
        return (
            f"describe.{name}: no answer from {urls} for {self._settings.give_up_after_s:g} s"
            f"{f' (the last: {last})' if last else ''}. {KEPT}: bring the servers back and run "
            "the step again."
        )

    async def _try(
        self, name: StageName, endpoint: Endpoint, body: bytes, taker: Taker | None = None
    ) -> Verdict:
        """Send a request once and give its place back.

        Raises:
            EndpointError: the endpoint serves nobody.
        """
        sent_at = time.monotonic()
        sending = asyncio.create_task(self._transport.send(endpoint, body))
        try:
            verdict = await asyncio.shield(sending)
        except BaseException:
            if taker:
                self._late[sending] = taker
            self._rotation.unused(endpoint)
            raise
        match verdict.kind:
            case Kind.ANSWERED:
                self._rotation.succeeded(endpoint)
                if verdict.answer and taker and taker.fits(verdict.answer):
                    self._served_at[endpoint, name] = time.monotonic()
                return verdict
            case Kind.OVERLOADED:
                self._rotation.overloaded(endpoint, sent_at, verdict.retry_after_s)
            case Kind.FAULTY | Kind.UNREACHABLE:
                self._rotation.failed(endpoint, verdict.detail)
            case Kind.REFUSED | Kind.UNSERVED:
                self._rotation.unused(endpoint)
        self._note_setback(name, endpoint, verdict.detail)
        if verdict.kind is Kind.UNSERVED:
            said = verdict.detail.rstrip(".")
            advice = _advice(name, said) or "see the stage's endpoints, model and api_key_env"
            raise EndpointError(
                f"describe.{name}: {endpoint.url} serves nobody: {said}. {KEPT}: mend that "
                f"({advice}) and run the step again."
            )
        return verdict

    async def _keep_late_answers(self) -> None:
        """Keep what was still being answered when the step stopped."""
        wait_s = min(self._settings.request_timeout_s, LONGEST_FAREWELL_S)
        if not self._late:
            return
        done, left = await asyncio.wait(self._late, timeout=wait_s)
        for task in done:
            answer = None if task.exception() else task.result().answer
            if answer and not self._late[task].may_be_canned(answer):
                self._late[task].keep(answer)
        for task in left:
            task.cancel()

    def _note_setback(self, name: StageName, endpoint: Endpoint, detail: str) -> None:
        self._last_setback[name] = f"{endpoint.url}: {detail}"


def _advice(name: StageName, said: str) -> str:
    """The setting that helps against what a server does not like, as far as it is known."""
    found = [setting for words, setting in ADVICE if re.search(words, said)]
    return f"see {' and '.join(f'describe.{name}.{setting}' for setting in found)}" if found else ""


Endpoints = dict[StageName, tuple[Endpoint, ...]]


def endpoints_of(settings: ClientSettings) -> tuple[Endpoints, Secrets]:
    """The endpoints of each stage; one URL with one key is one endpoint, whoever asks it.

    Raises:
        SettingsError: a key is missing, or is none.
    """
    known: dict[tuple[str, str], Endpoint] = {}
    keys = {name: _key(name, stage.api_key_env) for name, stage in settings.stages.items()}
    for name, stage in settings.stages.items():
        for url in stage.endpoints:
            endpoint = Endpoint(
                url,
                settings.concurrency,
                _headers(keys[name]),
                probe_model=stage.model,
                token_limit_name=stage.token_limit_name,
            )
            known.setdefault((url, stage.api_key_env), endpoint)
    stages = {
        name: tuple(known[url, stage.api_key_env] for url in dict.fromkeys(stage.endpoints))
        for name, stage in settings.stages.items()
    }
    return stages, Secrets(keys.values())


def _key(name: StageName, variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable)
    if not key:
        raise SettingsError(
            f"describe.{name}.api_key_env: the environment has no variable {variable}"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise SettingsError(
            f"describe.{name}.api_key_env: what the variable {variable} holds is no key: there is "
            "a blank, a line break or a character outside ASCII in it (perhaps at its end)"
        )
    return key


def _headers(key: str) -> dict[str, str]:
    common = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return {**common, "Authorization": f"Bearer {key}"} if key else common
