"""A value that is typed for a setting means what the type of the setting says."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from components.core.errors import SettingsError
from components.core.settings import parse_assignments


class Pot(BaseModel):
    """A section."""

    model_config = ConfigDict(extra="forbid")

    lid: str = ""
    litres: float = 1


class Kitchen(BaseModel):
    """One setting of each type."""

    model_config = ConfigDict(extra="forbid")

    label: str = ""
    note: str | None = "x"
    kind: Literal["no", "some", ""] = "some"
    cups: int = 1
    share: float = 0.5
    is_hot: bool = True
    turns: Literal[1, 3] = 1
    hosts: tuple[str, ...] = ()
    limits: dict[str, float] = {}
    changes: dict[str, Any] = {}
    pot: Pot = Pot()


def assigned(text: str) -> Any:
    """The value of the setting that a text names."""
    given = parse_assignments([text], Kitchen)
    kitchen = Kitchen.model_validate(given)
    return getattr(kitchen, text.partition("=")[0].partition(".")[0])


@pytest.mark.parametrize(
    "text",
    [
        "/data/a #2", "/data/a#2", "# all", "no", "null", "~", "~/pictures", "1e3", "0123", "1:30",
        "a: b", "{a", "[a", "*x", "&x", "!x", "@x", "`x", "%x", "2026-01-31", "'a' or 'b'",
        "'", "'a\"", " lead", "trail ",
        "tab\there", "two\nlines #1", "é🍵", "", "x=y", "- x", "\udcff",
    ],
)  # fmt: skip
def test_a_text_is_taken_as_typed(text):
    assert parse_assignments([f"label={text}"], Kitchen) == {"label": text}
    assert parse_assignments([f"pot.lid={text}"], Kitchen) == {"pot": {"lid": text}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("label='no #1'", "no #1"),
        ('label="<|user|>\\n\\n"', "<|user|>\n\n"),
        ("label=''", ""),
        ("cups=0123", 123),
        ("cups=1_000", 1000),
        ("cups= 7 ", 7),
        ("share=1e-1", 0.1),
        ("share=.5", 0.5),
        ("is_hot=no", False),
        ("is_hot=on", True),
        ("is_hot=0", False),
        ("kind=no", "no"),
        ("kind=", ""),
        ("note=null", None),
        ("note=nothing", "nothing"),
        ("turns=3", 3),
        ("hosts=[no, 0123, 1e3, ~, 2026-01-31, 'a #b']",
         ("no", "0123", "1e3", "~", "2026-01-31", "a #b")),
        ("hosts=[]", ()),
        ("limits={a: 1e-3, no: 1}", {"a": 0.001, "no": 1.0}),
        ("limits.no=010", {"no": 10.0}),
        ("changes={a: 010, b: no, c: [1e3]}", {"a": 10, "b": False, "c": [1000.0]}),
        ("pot={lid: no, litres: 010}", Pot(lid="no", litres=10)),
    ],
)  # fmt: skip
def test_the_type_of_the_setting_says_how_a_text_is_read(text, value):
    assert assigned(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "cups=1:30", "cups=0x10", "cups=no", "cups=~", "cups=1e3", "cups=", "share=no",
        "share=1:30", "is_hot=2", "is_hot=~", "hosts=a", "turns=2",
    ],
)  # fmt: skip
def test_no_other_value_is_made_of_a_text_that_does_not_fit(text):
    with pytest.raises(ValueError, match=text.partition("=")[0]):
        assigned(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cups=5 #five", "comment"),
        ("hosts=[a] # the first", "comment"),
        ("hosts=[a #b]", "comment"),
        ("hosts=[a\n  # b\n  , c]", "comment"),
        ("hosts=[&x a, *x]", "in quotes"),
        ("hosts=[!!python/name:os.system a]", "in quotes"),
        ("limits={a: 1, a: 2}", "twice"),
        ("pot={lid: a, lid: b}", "twice"),
        ("hosts=[\t- a", "not YAML"),
        (f"hosts={'[' * 3000}", "not YAML"),
        ("pot..lid=x", "key=value"),
        (".lid=x", "key=value"),
    ],
)
def test_what_yaml_would_drop_or_follow_is_refused(text, reason):
    with pytest.raises(SettingsError, match=reason):
        parse_assignments([text], Kitchen)
