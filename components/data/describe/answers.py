"""What the models must answer: schemas, and how an answer is read out of what they wrote."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from components.data.describe.scenes import MAX_CAPTIONS, Attribute
from components.data.llm.prompt import one_line
from components.data.llm.settings import StageName

MAX_TEXT_CHARS = 1600
MAX_REASON_CHARS = 400
MAX_RAW_CHARS = 4 * MAX_TEXT_CHARS  # before blanks and invisible characters are taken out
MAX_OBJECTS, MAX_NAMES = 32, 32  # in an answer; names of one object
MAX_TOLD_CHARS, MAX_NAME_CHARS = 600, 60  # of what is wrong with an answer; of a field's name
_THINKING = r"(?:seed:)?(?:think|thinking|reasoning|reflection)"
_OBJECT = re.compile(r'\{\s*"')  # `{region}` in prose is no JSON
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|$))|,(?=\s*[}\]])', re.DOTALL)


def _clean(value: object) -> object:
    if not isinstance(value, str):
        return value
    if len(value) > MAX_RAW_CHARS:
        raise ValueError(f"a text of {len(value)} characters is far too long")
    return one_line(value)


Text = Annotated[str, BeforeValidator(_clean), Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Reason = Annotated[str, BeforeValidator(_clean), Field(max_length=MAX_REASON_CHARS)]


class AnswerSchema(BaseModel):
    """Base of the answers; other keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Caption(AnswerSchema):
    """Answer of the stages `object` and `context`."""

    caption: Text


class PartCaption(AnswerSchema):
    """Answer of the stage `part`."""

    caption: Text
    location: Text
    short_caption: Text


class Verdict(AnswerSchema):
    """Answer of the stages that verify."""

    consistent: bool
    only_visible: bool
    valid_english: bool
    reason: Reason


class Merged(AnswerSchema):
    """Answer of the stages `merge` and `whole`."""

    long_caption: Text
    short_caption: Text


class Checked(AnswerSchema):
    """Answer of the stage `check`."""

    keeps_object: bool
    keeps_location: bool
    reason: Reason


class Change(AnswerSchema):
    """A caption with one attribute changed."""

    attribute: Attribute
    caption: Text


class Changes(AnswerSchema):
    """Answer of the stage `change`."""

    changes: tuple[Change, ...] = Field(max_length=MAX_CAPTIONS)


class JudgedCaption(AnswerSchema):
    """What a verifier says of one of several captions; `number` counts from 1."""

    number: int
    fits: bool
    same_thing: bool
    valid_english: bool
    reason: Reason


class JudgedCaptions(AnswerSchema):
    """Answer of the stage `verify_change`."""

    captions: tuple[JudgedCaption, ...] = Field(max_length=MAX_CAPTIONS + 1)


SCHEMAS: dict[StageName, type[AnswerSchema]] = {
    "object": Caption,
    "verify": Verdict,
    "context": Caption,
    "merge": Merged,
    "check": Checked,
    "part": PartCaption,
    "whole": Merged,
    "verify_part": Verdict,
    "verify_whole": Verdict,
    "change": Changes,
    "verify_change": JudgedCaptions,
}
Answer = TypeVar("Answer", bound=AnswerSchema)


class InvalidAnswerError(ValueError):
    """An answer in another form than was asked for; the message can be sent to the model."""


def response_format(schema: type[AnswerSchema]) -> dict[str, object]:
    """The request's `response_format` that makes servers answer by the schema."""
    return {
        "type": "json_schema",
        "json_schema": {
            "name": schema.__name__.lower(),
            "schema": schema.model_json_schema(),
            "strict": True,
        },
    }


def parse_answer(content: str, is_cut_off: bool, schema: type[Answer]) -> Answer:
    """Read an answer.

    Raises:
        InvalidAnswerError: it is cut off, holds no JSON, or not the JSON of the schema.
    """
    text = without_thinking(content)
    if is_cut_off:
        raise InvalidAnswerError("the answer was cut off before its end; answer more briefly")
    answers, problem = [], "the answer holds no JSON object"
    for value in _objects(text):
        if isinstance(value, ValueError):
            problem = f"the JSON cannot be read: {value}"
            continue
        try:
            answers.append(schema.model_validate(value))
        except ValidationError as error:
            problem = "; ".join(map(_told, error.errors(include_url=False)[:5]))
    if any(answer != answers[0] for answer in answers):
        raise InvalidAnswerError("the answer holds several JSON objects that differ")
    if not answers:
        raise InvalidAnswerError(problem[:MAX_TOLD_CHARS])
    return answers[0]


def _told(error: ErrorDetails) -> str:
    place = ".".join(str(part)[:MAX_NAME_CHARS] for part in error["loc"])
    return f"{place}: {error['msg'][:200]}"


def _objects(text: str) -> Iterator[dict[str, object] | ValueError]:
    """The JSON objects in a text up to the first that cannot be read, which is given as an error.

    Line breaks inside strings and commas before a closing bracket are taken as they are meant.
    """
    if text[:1] == '"':
        text = _unquoted(text)
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_object)
    position = 0
    for _ in range(MAX_OBJECTS):
        start = _OBJECT.search(text, position)
        if start is None:
            return
        try:
            value, position = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError) as error:
            try:
                mended = _TRAILING_COMMA.sub(r"\1", text[start.start() :])
                value, _ = decoder.raw_decode(mended)
            except (ValueError, RecursionError):
                yield ValueError(str(error))
                return
            yield value
            return
        yield value


def _unquoted(text: str) -> str:
    """The text inside a JSON string: some models write their JSON as one."""
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(pairs) > MAX_NAMES:
        raise ValueError(f"an object with {len(pairs)} names")
    if any(value[name] != given for name, given in pairs):
        raise ValueError("a name stands there twice, with different values")
    return value


def without_thinking(content: str) -> str:
    """An answer without the thinking of a reasoning model, whether it was closed or opened."""
    # Only up to the last closing tag: past it every opening tag would be searched to the end.
    end = max((tag.end() for tag in re.finditer(rf"</{_THINKING}>", content, re.I)), default=0)
    closed = re.sub(rf"<{_THINKING}>.*?</{_THINKING}>", " ", content[:end], flags=re.DOTALL | re.I)
    text = closed + content[end:]
    # Chat templates that open the thinking themselves leave only the closing tag.
    text = re.split(rf"</{_THINKING}>", text, flags=re.I)[-1]
    return re.split(rf"<{_THINKING}>", text, flags=re.I)[0].strip()
