"""Prompt files: which pictures to send, what to say once for all regions, what to say of one.

A prompt file is YAML between two lines of dashes, then a Jinja2 template with two blocks:
`instructions`, the same for every region (servers cache a shared prefix), and `region`.
Every text a template gets comes from the web or from a model. It arrives as a JSON string in which
no tag, bracket or control token survives, so that it can be told from the instructions.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import InputError

PROMPTS = Path(__file__).parent / "prompts"
MAX_DATA_CHARS = 1500
Untrusted = Mapping[str, str | Sequence[str]]  # texts, or lists of them, by name
_TELLING = re.compile(r"[<>&\[\]{}`]")  # what tags, control tokens and markup are made of
PictureKind = Literal[
    "image", "image_with_box", "image_with_outline", "crop", "crop_with_outline", "masked_crop"
]


class PromptHead(BaseModel):
    """The YAML part of a prompt file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: tuple[PictureKind, ...] = ()
    max_side_px: int = Field(768, ge=28)  # larger pictures are made smaller
    min_side_px: int = Field(336, ge=1)  # smaller crops are made larger
    jpeg_quality: int = Field(90, ge=1, le=95)
    # DeepSeek-R1 wants its instructions in the user's turn.
    instructions_role: Literal["system", "user"] = "system"


@dataclass(frozen=True)
class Prompt:
    """A prompt file."""

    name: str
    version: str  # digest of the file; with the name it says exactly what was asked
    head: PromptHead
    template: jinja2.Template
    common: Mapping[str, object]  # word limits and language: the same for every region

    @cached_property
    def instructions(self) -> str:
        """What is said first, the same for every region."""
        return self._block("instructions", {})

    def region_text(self, texts: Untrusted, facts: Mapping[str, object]) -> str:
        """What is said of one region: `texts` are untrusted, `facts` are our own numbers."""
        quoted = {
            name: as_data(said) if isinstance(said, str) else list(map(as_data, said))
            for name, said in texts.items()
        }
        return self._block("region", {**quoted, **facts})

    def _block(self, name: str, variables: Mapping[str, object]) -> str:
        context = self.template.new_context({**self.common, **variables})
        return "".join(self.template.blocks[name](context)).strip()


def load_prompt(name: str, common: Mapping[str, object], folder: Path = PROMPTS) -> Prompt:
    """Read a prompt file.

    Raises:
        InputError: there is none of that name, or it is not in the form of one.
    """
    path = folder / name
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in folder.glob("*.j2")))
        raise InputError(f"no prompt file {name}; there are {known}")
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^---$\n", text, maxsplit=2, flags=re.MULTILINE)
    environment = jinja2.Environment(  # no HTML is made: `as_data` escapes what is untrusted
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701
    )
    try:
        head = PromptHead.model_validate(yaml.safe_load(parts[1]) or {})
        template = environment.from_string(parts[2])
    except (IndexError, yaml.YAMLError, ValidationError, jinja2.TemplateError) as error:
        raise InputError(f"prompt file {name}: {error}") from error
    missing = {"instructions", "region"} - set(template.blocks)
    if missing:
        raise InputError(f"prompt file {name} lacks the block(s) {', '.join(sorted(missing))}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Prompt(name, digest, head, template, dict(common))


def as_data(text: str) -> str:
    """Untrusted text as a JSON string without tags, control tokens or hidden characters."""
    quoted = json.dumps(one_line(text[: 4 * MAX_DATA_CHARS])[:MAX_DATA_CHARS], ensure_ascii=False)
    return _TELLING.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def build_messages(
    prompt: Prompt, region_text: str, picture_urls: list[str]
) -> list[dict[str, Any]]:
    """The chat messages: shared instructions, then pictures, then what is special."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in picture_urls]
    if prompt.head.instructions_role == "system":
        system = [{"role": "system", "content": prompt.instructions}]
        return [*system, {"role": "user", "content": _content([], pictures, region_text)}]
    return [{"role": "user", "content": _content([prompt.instructions], pictures, region_text)}]


def _content(
    before: list[str], pictures: list[dict[str, Any]], text: str
) -> str | list[dict[str, Any]]:
    if not pictures:  # plain text: templates of text-only models know no list of parts
        return "\n\n".join([*before, text])
    parts = [{"type": "text", "text": part} for part in before]
    return [*parts, *pictures, {"type": "text", "text": text}]


INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
# Of combining marks in a row, as in Unicode's Stream-Safe Text Format (UAX #15): to order and
# compose them takes the square of their number.
MAX_MARKS = 30


def one_line(text: str) -> str:
    """A text on one line, composed (NFC), without control and other invisible characters."""
    text = unicodedata.normalize("NFC", with_bounded_marks(text))
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char) in INVISIBLE else char for char in text)
    return " ".join(text.split())


def with_bounded_marks(text: str) -> str:
    """A text that can be normalised in no time: longer runs of combining marks are cut."""
    if text.isascii():
        return text
    kept, num_marks = [], 0
    for char in text:
        num_marks = num_marks + 1 if _is_mark(char) else 0
        if num_marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _is_mark(char: str) -> bool:
    """Whether it is a combining mark, or becomes some when it is normalised (U+0F73, U+FF9E)."""
    return char > "\u02ff" and unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) > 0
