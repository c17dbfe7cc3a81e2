"""Write the params files: every setting of each of a pipeline's steps, with its meaning.

A file of `params/` holds a section for each step and is edited by hand: its values, and the comment
it begins with, stay. What it lacks is added with the default, and the comments are written anew.

python -m components.core.params params/longgrit.yaml params/pixclip.yaml
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from components.core.settings import parse_settings, read_params
from components.core.step import is_marked, load_step
from components.core.yaml_text import read_yaml

MAX_COLUMNS = 100
GROUPED_FROM = 1_000_000  # whole numbers with this many are written with underscores
RUNTIME = "# The settings below change how the step runs, not what it makes."


def params_text(path: Path) -> str:
    """What a params file should hold: its own values, and all that is known of its settings.

    Raises:
        SettingsError: the file cannot be read, or a section is of no step or not valid.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    header = "\n".join(takewhile(lambda line: line.startswith("#"), lines))
    sections = [_section(path, name) for name in read_yaml("\n".join(lines)) or {}]
    return "\n".join([header, "", "\n\n".join(sections), ""])


def params_files(folder: Path, step: str) -> list[Path]:
    """The params files of a folder that have a section of this step."""
    return [
        path
        for path in sorted(folder.glob("*.yaml"))
        if f"\n{step}:" in f"\n{path.read_text(encoding='utf-8')}"
    ]


def _section(path: Path, name: str) -> str:
    step = load_step(name)
    settings = parse_settings(step, read_params(path, name))
    return "\n".join([f"# {step.summary}", f"{name}:", *_lines(settings, "  ")])


def _lines(settings: BaseModel, indent: str) -> Iterator[str]:
    """The settings of a section; those that decide nothing of the outputs come last."""
    fields = type(settings).model_fields
    values = settings.model_dump(mode="json")
    is_step = indent == "  "
    last = [name for name in fields if is_step and is_marked(fields[name], "runtime")]
    for name in [name for name in fields if name not in last] + last:
        if last and name == last[0] and len(last) < len(fields):
            yield indent + RUNTIME
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _with_comment(f"{indent}{name}:", _meaning(value), indent)
            yield from _lines(value, indent + "  ")
        else:
            line = f"{indent}{name}: {_value(values[name])}"
            yield from _with_comment(line, fields[name].description or "", indent)


def _meaning(section: BaseModel) -> str:
    return (section.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _with_comment(line: str, meaning: str, indent: str) -> Iterator[str]:
    if not meaning:
        yield line
    elif len(beside := f"{line}  # {meaning}") <= MAX_COLUMNS:
        yield beside
    else:
        yield from textwrap.wrap(
            meaning,
            MAX_COLUMNS,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield line


def _value(value: Any) -> str:
    """A value as YAML on one line, which reads as the same value again."""
    if value == "":
        return '""'
    if type(value) is int and value >= GROUPED_FROM:
        return f"{value:_}"
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if read_yaml(text) == value else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(params_text(file), encoding="utf-8")
