"""One stage asked for one region: cache, request, validation, one repair, gates."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from components.data.describe import pictures as drawing
from components.data.describe.answers import (
    SCHEMAS,
    AnswerSchema,
    InvalidAnswerError,
    parse_answer,
    response_format,
    without_thinking,
)
from components.data.describe.outcomes import StageAccount, add_usage
from components.data.describe.scenes import Provenance, Region, Usage
from components.data.llm.cache import AnswerCache, RawAnswer
from components.data.llm.client import Taker
from components.data.llm.gates import REFUSAL, DroppedError, Problem, TextRules, find_problem
from components.data.llm.prompt import Prompt, Untrusted, build_messages
from components.data.llm.settings import StageName, StageSettings
from components.data.llm.transport import Secrets
from data_contracts.reasons import DescribeReason

SAMPLING = frozenset({"model", "temperature", "top_p", "max_tokens", "seed"})
MAX_QUOTED_CHARS = 4000  # of an answer that is shown to the model again


class Client(Protocol):
    """Sends a request body and gives the answer."""

    async def ask(self, name: StageName, body: bytes, taker: Taker) -> RawAnswer:
        """The answer to a request of that stage."""
        ...


@dataclass
class RegionState:
    """What has happened to a region so far."""

    region: Region
    pictures: drawing.Pictures
    phrases: tuple[str, ...] = ()  # of all regions of the image
    stage: StageName = ""
    provenance: dict[str, Provenance] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Context:
    """What all stages share."""

    client: Client
    cache: AnswerCache
    renderers: Executor
    secrets: Secrets = field(default_factory=Secrets)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)  # by request hash


@dataclass(frozen=True)
class _Request:
    prompt: Prompt
    text: str
    pictures: drawing.Pictures
    region: Region
    hash: str
    repair: tuple[str, str] | None = None  # an answer that cannot be used, and why


class Stage:
    """Asks one stage; `prompts` are those of subsets that have their own."""

    def __init__(
        self,
        name: StageName,
        settings: StageSettings,
        prompt: Prompt,
        rules: Mapping[str, TextRules],
        prompts: Mapping[str, Prompt] | None = None,
    ) -> None:
        self.name, self.account = name, StageAccount()
        self._settings, self._prompt, self._rules = settings, prompt, rules
        self._prompts = prompts or {}
        self._schema = SCHEMAS[name]
        self._format: dict[str, Any] = {}
        if settings.is_structured:
            self._format = {"response_format": response_format(self._schema)}
        self._sampling = settings.model_dump(include=set(SAMPLING.difference(settings.unsent)))

    async def ask(
        self,
        context: Context,
        state: RegionState,
        texts: Untrusted,
        facts: Mapping[str, object],
    ) -> AnswerSchema:
        """A valid answer for a region; the state says who gave it and what it took.

        Raises:
            DroppedError: there is none; asked twice where that may help.
            ImageError: the region's image cannot be used.
        """
        state.stage = self.name
        request = self._request(state.region, state.pictures, texts, facts)
        raw = await self._answer(context, state, request)
        judged = self._judge(raw, request.prompt)
        if isinstance(judged, Problem) and judged.is_repairable:
            request = self._repair(request, raw, judged)
            judged = self._judge(await self._answer(context, state, request), request.prompt)
        if isinstance(judged, Problem):
            raise DroppedError(judged)
        return judged

    def sample_bodies(
        self,
        region: Region,
        pictures: drawing.Pictures,
        texts: Untrusted,
        facts: Mapping[str, object],
    ) -> tuple[bytes, bytes]:
        """Bodies of a request that is booked nowhere: for one token, and as a true request."""
        request = self._request(region, pictures, texts, facts)
        return self._encode(request, max_tokens=1), self._encode(request)

    def _request(
        self,
        region: Region,
        pictures: drawing.Pictures,
        texts: Untrusted,
        facts: Mapping[str, object],
    ) -> _Request:
        prompt = self._prompts.get(region.subset, self._prompt)
        text = prompt.region_text(texts, facts)
        return _Request(prompt, text, pictures, region, self._hash(prompt, text, region))

    async def _answer(self, context: Context, state: RegionState, request: _Request) -> RawAnswer:
        # Twin regions ask the same: the second waits for the first and finds its answer.
        async with context.locks.setdefault(request.hash, asyncio.Lock()):
            raw = context.cache.get(request.hash)
            is_cached = raw is not None
            if raw is None:
                body = await self._body(context.renderers, request)
                taker = Taker(self._fits, partial(context.cache.put, request.hash))
                raw = await context.client.ask(self.name, body, taker)
        context.locks.pop(request.hash, None)
        usage = self._usage(raw)
        self.account.count(usage, is_cached, is_repair=request.repair is not None)
        state.usage = add_usage(state.usage, usage)
        state.provenance[self.name] = Provenance(
            describer="endpoints",
            model=self._settings.model,
            prompt=request.prompt.name,
            prompt_version=request.prompt.version,
            request_hash=request.hash,
        )
        return raw

    def _fits(self, raw: RawAnswer) -> bool:
        try:
            parse_answer(raw.content, False, self._schema)
        except InvalidAnswerError:
            return False
        return True

    def _judge(self, raw: RawAnswer, prompt: Prompt) -> AnswerSchema | Problem:
        try:
            answer = parse_answer(raw.content, raw.finish_reason == "length", self._schema)
        except InvalidAnswerError as error:
            if raw.finish_reason == "content_filter":
                return Problem(DescribeReason.REFUSAL, "the server's content filter")
            refusal = REFUSAL.search(without_thinking(raw.content)[:300])
            if refusal:
                return Problem(DescribeReason.REFUSAL, f"found '{refusal[0].strip()[:60]}'")
            return Problem(DescribeReason.INVALID_ANSWER, str(error), is_repairable=True)
        for name, rules in self._rules.items():
            problem = find_problem(getattr(answer, name), rules, prompt.instructions)
            if problem:
                return problem
        return answer

    def _hash(self, prompt: Prompt, text: str, region: Region) -> str:
        seen = [region.image_sha256, region.box_xyxy, region.rle.as_coco(), drawing.RENDERING]
        asked: list[object] = [self.name, prompt.name, prompt.version]
        asked += [prompt.instructions, text, seen if prompt.head.pictures else None]
        asked += [self._sampling, self._format]
        return _digest(asked)

    def _repair(self, request: _Request, raw: RawAnswer, problem: Problem) -> _Request:
        shown = without_thinking(raw.content)[:MAX_QUOTED_CHARS] or "(nothing)"
        digest = _digest([request.hash, shown, problem.detail])
        return replace(request, hash=digest, repair=(shown, problem.detail))

    async def _body(self, renderers: Executor, request: _Request) -> bytes:
        if not request.prompt.head.pictures:
            return self._encode(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(renderers, self._encode, request)

    def _encode(self, request: _Request, max_tokens: int = 0) -> bytes:
        urls = request.pictures.urls(request.region, request.prompt.head)
        messages = build_messages(request.prompt, request.text, urls)
        if request.repair:
            messages += _repair_turn(*request.repair)
        sampling = {**self._sampling}
        limit = sampling.pop("max_tokens")
        sampling[self._settings.token_limit_name] = max_tokens or limit
        return json.dumps({**sampling, "messages": messages, **self._format}).encode()

    def _usage(self, raw: RawAnswer) -> Usage:
        cost_usd = self._settings.cost_usd(raw.prompt_tokens, raw.completion_tokens)
        return Usage(1, raw.prompt_tokens, raw.completion_tokens, raw.seconds, cost_usd)


def _repair_turn(answer: str, problem: str) -> list[dict[str, str]]:
    advice = (
        f"This answer cannot be used: {problem}. Answer again, with nothing but the JSON object."
    )
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": advice}]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()
