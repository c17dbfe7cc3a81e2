"""What the models must answer: schemas, and how an answer is read out of what they wrote."""

import json
import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from components.describe.endpoints.text import one_line
from components.describe.settings import StageName

MAX_TEXT_CHARS = 1600
MAX_REASON_CHARS = 400
_THINKING = r"(?:think|thinking|reasoning|reflection)"


def _clean(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_clean), Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Reason = Annotated[str, BeforeValidator(_clean), Field(max_length=MAX_REASON_CHARS)]


class AnswerSchema(BaseModel):
    """Base of the answers; other keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Caption(AnswerSchema):
    """Answer of the stages `object` and `context`."""

    caption: Text


class Verdict(AnswerSchema):
    """Answer of the stage `verify`."""

    consistent: bool
    only_visible: bool
    valid_english: bool
    reason: Reason


class Merged(AnswerSchema):
    """Answer of the stage `merge`."""

    long_caption: Text
    short_caption: Text


class Checked(AnswerSchema):
    """Answer of the stage `check`."""

    keeps_object: bool
    keeps_location: bool
    reason: Reason


SCHEMAS: dict[StageName, type[AnswerSchema]] = {
    "object": Caption,
    "verify": Verdict,
    "context": Caption,
    "merge": Merged,
    "check": Checked,
}
Answer = TypeVar("Answer", bound=AnswerSchema)


class InvalidAnswerError(ValueError):
    """An answer that is not in the form that was asked for; the message can be told the model."""


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
    start = text.find("{")
    if is_cut_off:
        raise InvalidAnswerError("the answer was cut off before its end; answer more briefly")
    if start < 0:
        raise InvalidAnswerError("the answer holds no JSON object")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
        return schema.model_validate(value)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        raise InvalidAnswerError("; ".join(problems)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError(f"the JSON cannot be read: {error}") from None


def without_thinking(content: str) -> str:
    """An answer without the thinking of a reasoning model, whether it was closed or opened."""
    # Only up to the last closing tag: past it every opening tag would be searched to the end.
    end = max((tag.end() for tag in re.finditer(rf"</{_THINKING}>", content, re.I)), default=0)
    closed = re.sub(rf"<{_THINKING}>.*?</{_THINKING}>", " ", content[:end], flags=re.DOTALL | re.I)
    text = closed + content[end:]
    # Chat templates that open the thinking themselves leave only the closing tag.
    text = re.split(rf"</{_THINKING}>", text, flags=re.I)[-1]
    return re.split(rf"<{_THINKING}>", text, flags=re.I)[0].strip()
