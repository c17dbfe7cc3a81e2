"""What a server sends back: the parts of a `chat.completion` that are read, and `Retry-After`."""

import email.utils
import json
import math
import time
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from components.describe.endpoints.cache import RawAnswer


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


def _token_count(value: object) -> int:
    """Counts that a server leaves out or garbles are 0; the answer itself is still good."""
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


TokenCount = Annotated[int, BeforeValidator(_token_count)]


class _TokenUsage(BaseModel):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0


class _ChatReply(BaseModel):
    """What is read of a `chat.completion` object; everything else is ignored."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _TokenUsage | None = None


@dataclass(frozen=True)
class HttpReply:
    """Status, body and the one header that matters."""

    status: int
    body: bytes
    retry_after: str | None


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header (seconds or a date) asks to wait."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def raw_answer(body: bytes, seconds: float) -> RawAnswer:
    """The answer in the body of a reply.

    Raises:
        ValidationError: the body is no chat completion.
    """
    try:
        reply = _ChatReply.model_validate_json(body)
    except ValidationError:
        reply = _ChatReply.model_validate_json(_without_lone_surrogates(body))
    choice, usage = reply.choices[0], reply.usage or _TokenUsage()
    content = choice.message.content or choice.message.refusal or ""
    return RawAnswer(
        content,
        choice.finish_reason or "",
        usage.prompt_tokens,
        usage.completion_tokens,
        round(seconds, 6),
    )


def _without_lone_surrogates(body: bytes) -> bytes:
    """JSON with `?` for half characters, which models that are cut off write and UTF-8 lacks."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return body
