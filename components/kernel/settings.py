"""Gather a step's settings from a params file and from `key=value` overrides."""

import copy
import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components.kernel.assignments import read_value
from components.kernel.credentials import places_of_credentials, texts_of, without_credentials
from components.kernel.errors import SettingsError
from components.kernel.step import Step, StepSettings
from components.kernel.yaml_text import read_yaml, reason_of
from components.steps import STEPS

MAX_QUOTED_CHARS = 300
NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")  # also the bytes of a file's name that is no UTF-8


def parse_settings(step: Step, settings: Mapping[str, object]) -> StepSettings:
    """Validated settings of a step.

    Raises:
        SettingsError: names `step.field`, the rule and the value, but no password.
    """
    refuse_credentials(settings, step.name)
    _refuse_no_texts(settings, step.name)
    try:
        return step.settings_type.model_validate(dict(settings))
    except ValidationError as error:
        failures = [_explain(step, item) for item in error.errors()]
        raise SettingsError("; ".join(failures)) from None


def refuse_credentials(settings: Mapping[str, object], name: str) -> None:
    """Refuse settings that hold a password or token inside an address.

    Raises:
        SettingsError: names them without their values.
    """
    try:
        places = list(dict.fromkeys(places_of_credentials(dict(settings), name)))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if places:
        raise SettingsError(
            f"{', '.join(places)}: the address holds a user, a password or a token, and settings "
            "are written "
            "into receipts, pipelines and MLflow; leave it out and give it by Git's credential "
            "helper, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a model server's "
            "api_key_env, or a secret of the cluster"
        )


def _refuse_no_texts(settings: Mapping[str, object], name: str) -> None:
    """Refuse texts that can be no argument of a program or no UTF-8, as receipts are.

    Raises:
        SettingsError: names the first one.
    """
    for place, _, text in texts_of(dict(settings), name):
        found = NO_TEXT.search(text)
        if found:
            raise SettingsError(
                f"{place}: {found[0]!a} in {shortened(ascii(text))} is no character of a text in "
                "UTF-8; rename what has such a name"
            )


def _explain(step: Step, item: ErrorDetails) -> str:
    path = [str(part) for part in item["loc"]]
    if not path:  # a rule about several settings says itself which and what
        return f"{step.name}: {item['msg'].removeprefix('Value error, ')}"
    where = f"{step.name}.{'.'.join(path)}"
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']}, got {shortened(repr(item['input']))}"
    known = _field_names(step.settings_type, path[:-1])
    return f"{where}: no such setting; {_advice(path[-1], known)}"


def shortened(text: str) -> str:
    """A text that a message can quote, whatever its length and what it holds."""
    text = without_credentials(text)
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}…"


def _advice(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def read_params(path: Path, step: str) -> dict[str, object]:
    """The section of a step in a params file; empty if the file has none.

    Raises:
        SettingsError: the file is missing, is no YAML or its section is no mapping, or a section
            is of no step.
    """
    try:
        content = _read_once(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"cannot read the params file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"the params file {path} is not YAML: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"the params file {path} is not YAML: {reason_of(error)}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must have a section of settings for each step")
    for name in map(str, content):
        if name not in (*STEPS, step):
            raise SettingsError(
                f"{path}: section '{name}': no such step; {_advice(name, tuple(STEPS))}"
            )
    section = content.get(step) or {}
    if not isinstance(section, dict):
        raise SettingsError(f"{path}: section '{step}' must map settings to values")
    return copy.deepcopy(section)


@functools.lru_cache(maxsize=4)
def _read_once(text: str) -> Any:
    """The value of a text: a DAG reads the same params file for each of its tasks."""
    return read_yaml(text)


def merge(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Settings with changes laid over them, section by section."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[name] = value
    return merged


def parse_assignments(
    assignments: Iterable[str], settings_type: type[BaseModel] | None = None
) -> dict[str, object]:
    """Settings from texts like `max_words=80` or `verify.model=Qwen/Qwen2-VL-72B-Instruct`.

    A setting that is a text takes what was typed; see `assignments.py` for the others.

    Raises:
        SettingsError: a text is not `key=value`, or its value cannot be read.
    """
    settings: dict[str, object] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        path = key.strip().split(".")
        if not (separator and all(path)):
            raise SettingsError(f"--set takes key=value, got '{shortened(assignment)}'")
        try:
            value: Any = read_value(text, settings_type, path)
        except yaml.YAMLError as error:
            reason = reason_of(error)
            raise SettingsError(
                f"--set {shortened(assignment)}: the value is not YAML: {reason}"
            ) from None
        for part in reversed(path):
            value = {part: value}
        settings = merge(settings, value)
    return settings
