"""Captions as tokens: markers around them, truncation, and lengths that batches share."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pixclip.config import TextConfig

# Captions of one pass are padded to one of these lengths: few shapes, at most a third is padding.
PADDED_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Caption:
    """The tokens of a caption with its markers; `start:stop` are those of the caption itself."""

    ids: tuple[int, ...]
    start: int
    stop: int
    is_truncated: bool

    @property
    def padded_length(self) -> int:
        """The length it is padded to, which depends on nothing but this caption."""
        for length in PADDED_LENGTHS:
            if len(self.ids) <= length:
                return length
        return -(-len(self.ids) // PADDED_LENGTHS[-1]) * PADDED_LENGTHS[-1]


def normalise(text: str) -> str:
    """The text in Unicode's form NFC: what is hashed and what is encoded.

    Raises:
        ValueError: half a surrogate pair, such as careless cutting of JSON leaves, is no character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"no Unicode: {text[error.start]!r} at {error.start} is half a character; repair it"
        ) from None
    return unicodedata.normalize("NFC", text)


def normalise_at(index: int, text: str) -> str:
    try:
        return normalise(text)
    except ValueError as error:
        raise ValueError(f"text {index}: {error}") from None


class CaptionTokenizer:
    """Turns captions into tokens: [start of text] prefix caption suffix [end of text].

    Which of the tokenizer's own special tokens surround a text is asked of the tokenizer. Prefix,
    caption and suffix are tokenized apart, so that a caption's tokens do not depend on its markers
    and truncation never cuts the suffix off.
    """

    def __init__(self, tokenizer: Any, config: TextConfig) -> None:
        self._tokenizer = tokenizer
        before, after = _own_special_tokens(tokenizer)
        self._head = (*before, *self._tokens(config.prefix))
        self._tail = (*self._tokens(config.suffix), *after)
        self._room = config.max_tokens - len(self._head) - len(self._tail)
        if self._room < 1:
            raise ValueError(
                f"text.max_tokens={config.max_tokens} leaves no room for a caption beside its "
                f"{len(self._head) + len(self._tail)} marker tokens; raise it"
            )

    def __call__(self, texts: Sequence[str]) -> list[Caption]:
        """The tokens of every text.

        Raises:
            ValueError: a text has no token or is no Unicode; names its position.
        """
        if not len(texts):
            return []
        encoded = self._tokenizer(
            [normalise_at(index, text) for index, text in enumerate(texts)],
            add_special_tokens=False,
            verbose=False,
        )["input_ids"]
        return [self._caption(index, ids) for index, ids in enumerate(encoded)]

    def _caption(self, index: int, ids: list[int]) -> Caption:
        if not ids:
            raise ValueError(f"text {index} is empty: it has no token to embed; leave it out")
        kept = ids[: self._room]
        start = len(self._head)
        all_ids = (*self._head, *kept, *self._tail)
        return Caption(all_ids, start, start + len(kept), is_truncated=len(kept) < len(ids))

    def _tokens(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _own_special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    raise ValueError(
        "the tokenizer changes a text's tokens when it adds its special tokens; "
        "such a tokenizer cannot be used for a text tower"
    )
