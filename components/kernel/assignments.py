"""The value of a setting that is typed as `max_words=80`: its type says how the text is read.

A text takes what was typed, to the letter: `no`, `0123`, `a: b`, `~/x` and `x #1` too; only a text
in quotes is read as YAML reads it: `"two\\nlines"`. A number or a switch takes nothing else. Lists
and sections are YAML: `hosts=[a.example, b.example]`.
"""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from components.kernel.yaml_text import PlainLoader, read_yaml, refuse_double_keys

NULLS = ("", "~", "null", "Null", "NULL")


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
