"""Text from outside on one line, without anything that cannot be seen."""

import unicodedata

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
