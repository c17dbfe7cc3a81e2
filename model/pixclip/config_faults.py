"""What pydantic finds wrong with a configuration, a line each: `section.field`, rule, value."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from pixclip.json_files import brief, shown

# Texts of pydantic's rules, by the name of the error.
RULES = {
    "int_type": "be of type int",
    "float_type": "be of type float",
    "bool_type": "be of type bool",
    "string_type": "be of type str",
    "dict_type": "be of type dict",
    "tuple_type": "be a list",
    "model_type": "be a section of settings",
    "finite_number": "be finite",
    "greater_than": "be greater than {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "string_too_long": "have at most {max_length} characters",
    "too_long": "have {max_length} values",
    "too_short": "have at least {min_length} values",
    "missing": "have more values",
}


def fault_told(
    kind: type[BaseModel],
    item: Mapping[str, Any],
    path: str,
    text_kinds: Mapping[str, type[BaseModel]],
) -> str:
    """What is wrong with a value of a configuration, or a rule about several that names them.

    `item` is one of pydantic's errors, `path` where the configuration lies in a larger one, and
    `text_kinds` are the choices of the section `text`, whose tags pydantic puts into places.
    """
    rule, place, value = item["type"], item["loc"], shown(item["input"])
    if rule == "value_error":
        return str(item["ctx"]["error"])
    if rule == "union_tag_invalid":
        known = ", ".join(text_kinds)
        return f"text.kind must be one of {known}, got {brief(item['ctx']['tag'])}"
    parts = [part for part in (path, *map(str, place)) if part and part not in text_kinds]
    section, where = ".".join(parts[:-1]) or kind.__name__, brief(".".join(parts))
    if rule == "extra_forbidden":
        known = ", ".join(_section(kind, place[:-1], text_kinds).model_fields)
        return f"{section}: unknown settings {brief(place[-1])}; known are {known}"
    if rule == "missing" and isinstance(place[-1], str):
        return f"{section}: missing settings {place[-1]}"
    context = item.get("ctx", {})
    if rule == "literal_error":
        known = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"{where} must be one of {known}, got {brief(value.strip(chr(39)))}"
    if rule == "missing":  # of a list that has too few
        where = section
    bounds = {name: _plain(bound) for name, bound in context.items()}
    text = RULES[rule].format(**bounds) if rule in RULES else f"be otherwise ({item['msg']})"
    return f"{where} must {text}, got {value}"


def _plain(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _section(
    kind: type[BaseModel],
    place: tuple[int | str, ...],
    text_kinds: Mapping[str, type[BaseModel]],
) -> type[BaseModel]:
    section = kind
    for name in map(str, place):
        if name in text_kinds:
            section = text_kinds[name]
            continue
        inner = section.model_fields[name].annotation
        for choice in (inner, *get_args(inner)):
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                section = choice
                break
    return section
