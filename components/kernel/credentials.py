"""Passwords and tokens inside addresses, e.g. `https://ada:secret@git.example`.

Settings end up in receipts, compiled pipelines and MLflow, and messages in logs: neither holds any.
"""

import re
from collections.abc import Iterator

# Of http also a name alone: it may be a token. `ssh://git@host` is no secret.
USER = re.compile(r"(https?://|\w://(?=[^/\s@]*:))[^/\s]*@", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """A text whose addresses show neither user nor password."""
    return USER.sub(r"\1***@", text)


def places_of_credentials(value: object, name: str) -> Iterator[str]:
    """The dotted names of the texts in nested settings that hold credentials."""
    if isinstance(value, str) and USER.search(value):
        yield name
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from places_of_credentials(inner, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from places_of_credentials(inner, name)
