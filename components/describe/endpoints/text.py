"""Text from outside on one line, without anything that cannot be seen."""

import unicodedata

INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def one_line(text: str) -> str:
    """A text on one line, composed (NFC), without control and other invisible characters."""
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char) in INVISIBLE else char for char in text)
    return " ".join(text.split())
