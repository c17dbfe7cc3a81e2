"""JSON that somebody else may have written: bounded in size and depth, and refused by name."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 * 2**20
MAX_DEPTH = 64  # ours has 6; a parser's own stack ends at a thousand
SHOWN_CHARS = 200


class JsonError(ValueError):
    """A JSON text that is not read; the message says why, and which file if it is of one."""


def parse_json(content: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        JsonError: it is none, is nested too deep, names a field twice, or holds NaN or infinity,
            which are no JSON.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise JsonError(_too_deep(max_depth)) from None
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of 5,000 digits
        raise JsonError(f"it is no JSON: {shown(error)}") from None
    _require_shallow(value, max_depth)
    return value


def read_json(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        JsonError: see `parse_json`; also a file that cannot be read or is larger than any of ours.
    """
    try:
        if not path.is_file():
            raise JsonError(f"{path} is {'no file' if path.exists() else 'missing'}")
        num_bytes = path.stat().st_size
        if num_bytes > max_bytes:
            raise JsonError(f"{path} has {num_bytes} bytes; at most {max_bytes} are read")
        return parse_json(path.read_bytes())
    except OSError as error:
        raise JsonError(f"{path} cannot be read: {error.strerror or error}") from None
    except JsonError as error:
        raise JsonError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None


def read_json_object(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """The fields of a JSON file that holds an object.

    Raises:
        JsonError: see `read_json`; also a file that holds something else.
    """
    value = read_json(path, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise JsonError(f"{path} must hold an object with fields, it holds {shown(value)}")
    return value


def read_json_lines(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The objects of a file of lines that have these fields; none if there is no file.

    A last line that a kill cut off is left out; so are other damaged lines, which are reported.
    """
    try:
        *lines, _cut = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and all(
            isinstance(value.get(name), (kind, int)) for name, kind in fields.items()
        ):
            found.append(value)
    if len(found) < len(lines):
        log.warning("%s: %d damaged lines are left out", path, len(lines) - len(found))
    return found


def shown(value: object) -> str:
    """A value as messages show it: see `brief`."""
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        text = f"a {type(value).__name__}"
    return brief(text)


def brief(text: object) -> str:
    """A text in one line, of bounded length and without half characters."""
    line = " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]}…"


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise ValueError(f"the field {shown(twice)} is there twice")
    return fields


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _require_shallow(value: Any, max_depth: int) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        level = [
            inner for outer in level for inner in _values(outer) if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise JsonError(_too_deep(max_depth))


def _values(outer: Any) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def _too_deep(max_depth: int) -> str:
    return f"it is nested more than {max_depth} deep, which nothing of ours is"
