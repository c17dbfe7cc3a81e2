"""Keys that a server says back: found in every spelling, and shown in none.

Texts are compared after decoding: of a key and of a text only letters and digits count, after
JSON, percent and HTML escapes were undone. So a key is found with `\\/` for `/`, with `%2D` for
`-`, in other case, with blanks or line breaks inside, in base64 or hexadecimal, and in pieces.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from functools import cached_property

MIN_KEY_CHARS = 8  # shorter keys (`EMPTY`) are words that answers may hold
NUM_PIECES, MIN_PIECE_CHARS = 3, 6  # a key is found by as much of it, also where it is in pieces
MIN_WORD_CHARS = 12  # of a piece without digits in an answer: a word of a caption is no key
LONG_PIECE_CHARS = 24  # from here on some pieces stand for all: each of them holds one of these
MAX_ROUNDS = 3  # of escapes inside escapes
WITHHELD = "(withheld: it quotes the API key)"
_ESCAPE = re.compile(
    r"\\+u([0-9a-f]{4})|\\+x([0-9a-f]{2})|%([0-9a-f]{2})|&#x([0-9a-f]{1,5});", re.I
)
_BLANK = re.compile(r"\\+[nrtbf]")
_DECIMAL = re.compile(r"&#([0-9]{1,6});")


class Secrets:
    """The keys of all stages."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = frozenset(filter(None, keys))

    def mask(self, text: str) -> str:
        """A text that is to be quoted, without any key; withheld if it holds one in disguise."""
        for key in self._keys:
            text = text.replace(key, "(the key)")
        return WITHHELD if self._holds(text, self._quoted_pieces) else text

    def are_in(self, text: str) -> bool:
        """Whether an answer holds a key, or most of one."""
        return self._holds(text, self._answered_pieces)

    @cached_property
    def _quoted_pieces(self) -> frozenset[str]:
        return frozenset(
            piece
            for key in self._keys
            for spelling in _spellings(key)
            for piece in _pieces(spelling, -(-len(spelling) // NUM_PIECES), MIN_PIECE_CHARS)
        )

    @cached_property
    def _answered_pieces(self) -> frozenset[str]:
        keys = [key for key in self._keys if len(_plain(key)) >= MIN_KEY_CHARS]
        wordy = {
            piece
            for key in keys
            for spelling in _spellings(key)
            for piece in _pieces(spelling, -(-len(spelling) // 2), MIN_WORD_CHARS)
        }
        return frozenset(wordy | {piece for piece in self._quoted_pieces if _has_digit(piece)})

    def _holds(self, text: str, pieces: frozenset[str]) -> bool:
        if not pieces:
            return False
        readings = {_plain(text)}
        for _ in range(MAX_ROUNDS):
            decoded = _DECIMAL.sub(_decimal, _ESCAPE.sub(_character, _BLANK.sub(" ", text)))
            if decoded == text:
                break
            text = decoded
            readings.add(_plain(text))
        return any(piece in reading for reading in readings for piece in pieces)


def _pieces(spelling: str, size: int, min_chars: int) -> Iterable[str]:
    """Pieces of a key such that every piece of that size holds one of them."""
    size = min(max(size, min_chars), len(spelling))
    if size >= LONG_PIECE_CHARS:
        size //= 2
        return [spelling[i : i + size] for i in range(0, len(spelling) - size + 1, size)]
    if size < 4:
        return []
    return [spelling[i : i + size] for i in range(len(spelling) - size + 1)]


def _has_digit(piece: str) -> bool:
    return any(char.isdigit() for char in piece)


def _spellings(key: str) -> Iterable[str]:
    data = key.encode()
    yield _plain(key)
    yield binascii.hexlify(data).decode()
    for before in (b"", b".", b".."):  # base64 depends on where in a group of three a key starts
        encoded = base64.b64encode(before + data).decode()
        yield _plain(encoded[4 if before else 0 : -4])


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _character(escape: re.Match[str]) -> str:
    return _spelled(int(next(filter(None, escape.groups())), 16))


def _decimal(escape: re.Match[str]) -> str:
    return _spelled(int(escape[1]))


def _spelled(code: int) -> str:
    return chr(code) if code < 0x110000 else ""
