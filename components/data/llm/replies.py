"""What a server sends back: the answer in a reply, wherever servers put it, and `Retry-After`."""

import codecs
import email.utils
import json
import math
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from components.data.llm.cache import RawAnswer

MAX_REPLY_BYTES = 4 << 20
LEGACY_CHARSETS = frozenset({"iso8859-1", "iso8859-15", "cp1252"})  # believed where UTF-8 fails
CUT_OFF = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_STREAM = re.compile(r"\s*(?:(?:data|event|id|retry):|:)")
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class TooLargeError(ValueError):
    """A reply that is larger than any answer."""


@dataclass(frozen=True)
class HttpReply:
    """Status, body and the headers that matter."""

    status: int
    body: bytes
    retry_after: str | None = None
    encoding: str = ""  # of the body, as far as it was not undone
    charset: str = ""


def _text(value: object) -> str:
    """A text that UTF-8 can hold: models that are cut off write half characters."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _content(value: object) -> str:
    """The content of a message: a text, JSON, or a list of parts of which some are thinking."""
    if isinstance(value, dict) and "text" in value:
        value = [value]
    if isinstance(value, dict):
        try:
            return json.dumps(value)
        except RecursionError:
            return ""
    if not isinstance(value, list):
        return _text(value)
    parts = [part if isinstance(part, dict) else {"text": part} for part in value]
    kinds = ("text", "output_text", None)
    texts = [part.get("text") for part in parts if part.get("type") in kinds]
    return "".join(map(_text, texts or [part.get("refusal") for part in parts]))


def _arguments(value: object) -> str:
    """The arguments of a message's only tool call: some servers answer a schema by one."""
    match value:
        case [{"function": {"arguments": str() | dict() as arguments}}]:
            return _content(arguments)
    return ""


def _token_count(value: object) -> int:
    """Counts that a server leaves out or garbles are 0; the answer itself is still good."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value, re.ASCII):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < 2**53 else 0


def _finish_reason(value: object) -> str:
    reason = _text(value).lower()[:40]
    return "length" if reason in CUT_OFF else reason


def _mapping(value: object) -> object:
    return value if isinstance(value, dict) else {}


TokenCount = Annotated[int, BeforeValidator(_token_count)]
Text = Annotated[str, BeforeValidator(_text)]


class _Message(BaseModel):
    content: Annotated[str, BeforeValidator(_content)] = ""
    refusal: Text = ""
    reasoning_content: Text = ""
    reasoning: Text = ""
    tool_calls: Annotated[str, BeforeValidator(_arguments)] = ""

    @property
    def text(self) -> str:
        """What the model wrote; thinking only where a server put all of it there."""
        thoughts = [text for text in (self.reasoning_content, self.reasoning) if "{" in text]
        fields = (self.content, self.refusal, self.tool_calls, *thoughts)
        return next((text for text in fields if text.strip()), "")


class _Choice(BaseModel):
    message: _Message
    finish_reason: Annotated[str, BeforeValidator(_finish_reason)] = ""


class _TokenUsage(BaseModel):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0


class _ChatReply(BaseModel):
    """What is read of a `chat.completion` object; everything else is ignored."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Annotated[_TokenUsage, BeforeValidator(_mapping)] = _TokenUsage()


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
    return answer_in(loaded(body), seconds)


def answer_in(value: object, seconds: float) -> RawAnswer:
    """The answer in a loaded reply.

    Raises:
        ValidationError: it is no chat completion.
    """
    reply = _ChatReply.model_validate(value)
    choice = reply.choices[0]
    return RawAnswer(
        choice.message.text,
        choice.finish_reason,
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
        round(seconds, 6),
    )


def loaded(body: bytes, charset: str = "") -> Any:
    """The JSON value of a body, also of one that was streamed; None if it holds none."""
    try:
        text = _decoded(body, charset).removeprefix("\ufeff")
        if _STREAM.match(text):
            return _joined([json.loads(event) for event in _events(text)])
        return json.loads(text, strict=False)
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError):
        return None


def _decoded(body: bytes, charset: str) -> str:
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        if codecs.lookup(charset or "utf-8").name not in LEGACY_CHARSETS:
            raise
        return body.decode(charset)


def _events(text: str) -> list[str]:
    """The data of the events of a stream.

    Raises:
        ValueError: it ends before its end.
    """
    lines = [line.removeprefix("data:").strip() for line in text.split("\n") if line[:5] == "data:"]
    events = lines[: lines.index("[DONE]")] if "[DONE]" in lines else lines
    if len(events) == len(lines) and '"finish_reason"' not in "".join(events[-2:]):
        raise ValueError("the stream was cut off")
    return list(filter(None, events))


def _joined(chunks: list[Any]) -> object:
    """One completion of the chunks of a stream; a chunk that is no part of one stands for all."""
    message: dict[str, str] = {}
    whole: dict[str, Any] = {}
    finish_reason = None
    for chunk in chunks:
        if not isinstance(chunk, Mapping) or chunk.get("error"):
            return chunk
        whole["usage"] = chunk.get("usage") or whole.get("usage")
        for choice in (chunk.get("choices") or [])[:1]:
            delta = choice.get("delta") or choice.get("message") or {}
            for name in ("content", "refusal", "reasoning_content", "reasoning"):
                message[name] = message.get(name, "") + _content(delta.get(name))
            finish_reason = choice.get("finish_reason") or finish_reason
    if not message:
        return whole
    return {**whole, "choices": [{"message": message, "finish_reason": finish_reason}]}


def decompressed(body: bytes, encoding: str) -> bytes:
    """A body without the compression that nobody asked for; one that is not known stays.

    Raises:
        TooLargeError: it would become larger than any answer.
        ValueError: it is damaged, or ends before its end.
    """
    names = [name.strip() for name in encoding.lower().split(",")]
    name = next((name for name in reversed(names) if name in _WBITS), "")
    if body[:2] == b"\x1f\x8b":
        name = "gzip"
    elif name.endswith("gzip") or (name == "deflate" and body[:1] in b"{[<"):
        return body  # it says so, and is not
    if not name:
        return body
    try:
        return _inflated(body, _WBITS[name])
    except zlib.error:
        if name == "gzip":
            raise ValueError("the compressed reply is damaged") from None
    try:
        return _inflated(body, -15)  # servers that leave out the header of zlib
    except zlib.error:
        raise ValueError("the compressed reply is damaged") from None


def _inflated(body: bytes, wbits: int) -> bytes:
    stream = zlib.decompressobj(wbits)
    content = stream.decompress(body, MAX_REPLY_BYTES + 1)
    if len(content) > MAX_REPLY_BYTES:
        raise TooLargeError(f"the reply is over {MAX_REPLY_BYTES} bytes")
    if not stream.eof:
        raise ValueError("the compressed reply is cut off")
    return content
