"""Gather a step's settings from a params file and from `key=value`, read by its type."""

import copy
import difflib
import functools
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components.core.credentials import places_of_credentials, texts_of, without_credentials
from components.core.errors import SettingsError
from components.core.step import Step, StepSettings
from components.core.yaml_text import PlainLoader, read_yaml, reason_of, refuse_double_keys
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


def read_settings_file(path: Path, what: str) -> Any:
    """What a YAML file that people write holds; an empty one an empty mapping.

    Args:
        what: the kind of file, for messages: "params", "cluster".

    Raises:
        SettingsError: the file is missing, or is no YAML.
    """
    try:
        return _read_once(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"cannot read the {what} file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"the {what} file {path} is not YAML: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"the {what} file {path} is not YAML: {reason_of(error)}") from None


def read_params(path: Path, step: str) -> dict[str, object]:
    """The section of a step in a params file; empty if the file has none.

    Raises:
        SettingsError: the file is missing, is no YAML or its section is no mapping, or a section
            is of no step.
    """
    content = read_settings_file(path, "params")
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


def texts_in(value: object) -> Iterator[str]:
    """All texts of nested settings; names of sections are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)


def parse_assignments(
    assignments: Iterable[str], settings_type: type[BaseModel] | None = None
) -> dict[str, object]:
    """Settings from texts like `max_words=80` or `verify.model=Qwen/Qwen2-VL-72B-Instruct`.

    A setting that is a text takes what was typed; see `read_value` for the others.

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


NULLS = ("", "~", "null", "Null", "NULL")


# The value of a setting that is typed as `max_words=80`: its type says how the text is read.
#
# A text takes what was typed, to the letter: `no`, `0123`, `a: b`, `~/x` and `x #1` too; only a
# text in quotes is read as YAML reads it: `"two\nlines"`. A number or a switch takes nothing else.
# Lists and sections are YAML: `hosts=[a.example, b.example]`.


def read_value(text: str, settings_type: type[BaseModel] | None, path: list[str]) -> object:
    """What a text means for the setting at a path; YAML's meaning if the type is not known.

    Raises:
        YAMLError: the text cannot be read.
    """
    annotation: Any = settings_type or Any
    for part in path:
        annotation = _inner(annotation, part)
    try:
        return _value(text, annotation)
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None


def _inner(annotation: Any, key: str) -> Any:
    """The type of what a section or a mapping holds at a key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(key)
        return field.annotation if field else Any
    if get_origin(annotation) in (dict, Mapping):
        return get_args(annotation)[1]
    return Any


def _value(text: str, annotation: Any) -> object:
    if str in _alternatives(annotation) and _is_scalar(annotation):
        return _scalar(_unquoted(text), annotation)
    loader = PlainLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return "" if _is_scalar(annotation) else None
        return _typed(loader, node, annotation)
    finally:
        loader.dispose()


def _unquoted(text: str) -> str:
    """A text as typed, or what stands in the quotes around all of it."""
    if len(text) < len("''") or text[0] != text[-1] or text[0] not in "\"'":
        return text
    try:
        value = read_yaml(text)
    except yaml.YAMLError:  # quotes within
        return text
    return value if isinstance(value, str) else text


def _typed(loader: PlainLoader, node: yaml.Node, annotation: Any) -> object:
    """The value of a node, whose scalars are read as their types say."""
    if isinstance(node, yaml.MappingNode):
        refuse_double_keys(node)
        pairs = [(str(key.value), value) for key, value in node.value]
        return {key: _typed(loader, value, _inner(annotation, key)) for key, value in pairs}
    if isinstance(node, yaml.SequenceNode):
        items = (get_args(annotation) or (Any,))[0] if get_origin(annotation) else Any
        return [_typed(loader, item, items) for item in node.value]
    if _is_scalar(annotation):
        return _scalar(str(node.value), annotation)
    return loader.construct_object(node, deep=True)


def _scalar(text: str, annotation: Any) -> object:
    is_null = type(None) in _alternatives(annotation) and text in NULLS
    return None if is_null else text


def _is_scalar(annotation: Any) -> bool:
    """Whether a setting takes one text, number or switch, which validation reads from a text."""
    kinds = [kind for kind in _alternatives(annotation) if kind is not type(None)]
    return bool(kinds) and all(
        all(isinstance(value, str) for value in get_args(kind))
        if get_origin(kind) is Literal
        else kind in (str, int, float, bool)
        for kind in kinds
    )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the only one."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _alternatives(part))
    return (annotation,)
