"""Settings come from a params file and `key=value` texts, and refuse nonsense by name."""

import os

import pytest
from pydantic import Field

from components.core.errors import SettingsError
from components.core.settings import merge, parse_assignments, parse_settings, read_params
from components.core.step import Metrics, Out, StepSettings, step


class BrewSettings(StepSettings):
    cups: int = Field(2, description="cups to brew", ge=1)
    label: str = Field("tea", description="what to write on the cups")


@step(image="data")
def brew(exports: Out, settings: BrewSettings) -> Metrics:
    """Brew."""
    return {"cups": settings.cups}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cups": 0}, "brew.cups: Input should be greater than or equal to 1, got 0"),
        ({"cup": 3}, "brew.cup: no such setting; did you mean 'cups'?"),
        ({"zzz": 3}, "brew.zzz: no such setting; known are cups, label"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_the_rule_and_advice(settings, message):
    with pytest.raises(SettingsError) as caught:
        parse_settings(brew, settings)
    assert str(caught.value) == message


def test_every_bad_setting_is_told_at_once():
    with pytest.raises(SettingsError, match=r"brew\.cups.*brew\.label"):
        parse_settings(brew, {"cups": "many", "label": 7})


@pytest.mark.parametrize(
    "address",
    ["https://ada:hunter2@git.example/x", "http://hunter2@host", "postgresql://a:hunter2@db/x"],
)
def test_a_password_in_a_setting_is_refused_and_told_nowhere(address):
    with pytest.raises(SettingsError, match=r"^brew\.label: the address holds") as caught:
        parse_settings(brew, {"label": address})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(SettingsError(f"cannot reach '{address}'"))


@pytest.mark.parametrize("text", ["ssh://git@host/x", "git@host:x", "s3://b/a@c", "http://h/@x"])
def test_an_address_without_a_password_is_taken(text):
    assert parse_settings(brew, {"label": text}).label == text


@pytest.mark.parametrize(
    ("text", "what"),
    [("/data\0", "\\x00"), ("\ud800", "\\ud800"), (os.fsdecode(b"caf\xe9"), "\\udce9")],
)
def test_a_text_that_no_receipt_can_hold_is_refused_by_name(text, what):
    with pytest.raises(SettingsError) as caught:
        parse_settings(brew, {"label": text})
    assert str(caught.value).startswith(f"brew.label: '{what}' in ")
    with pytest.raises(SettingsError, match=r"^brew\.shelf\.a: '"):
        parse_settings(brew, {"shelf": [{"a": text}]})


def test_a_whole_number_that_came_back_as_a_float_is_taken():
    assert parse_settings(brew, {"cups": 3.0}).cups == 3


def test_assignments_are_yaml_and_may_be_nested():
    assert parse_assignments(["a.b=[1, 2]", "a.c=true", "d=x=y"]) == {
        "a": {"b": [1, 2], "c": True},
        "d": "x=y",
    }


@pytest.mark.parametrize("text", ["cups", "=3", ""])
def test_a_text_that_is_no_assignment_is_refused(text):
    with pytest.raises(SettingsError, match="key=value"):
        parse_assignments([text])


def test_an_assignment_that_is_refused_shows_no_password_whatever_its_length():
    address = f"cups=[https://ada:hunter2{'x' * 400}@host"
    with pytest.raises(SettingsError, match="not YAML") as caught:
        parse_assignments([address])
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_changes_win_and_leave_the_base_untouched():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 9}, "e": 4}) == {"a": {"b": 9, "c": 2}, "d": 3, "e": 4}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("\x00", "not YAML"),
        ("brew: 3", "must map"),
        ("- brew", "must have a section"),
        ("selct: {min_score: 1}", "section 'selct': no such step; did you mean 'select'"),
        ("brew: {label: a}\nbrew: {cups: 3}", "'brew' is there twice"),
        ("brew: {cups: 3, label: a, cups: 4}", "'cups' is there twice"),
        ("brew: &all {self: *all}", "recursive"),
        (f"brew: {'[' * 3000}", "not YAML"),
        (f"brew: {{cups: {'9' * 5000}}}", "not YAML"),
        (None, "cannot read"),
    ],
)
def test_a_broken_params_file_is_refused_with_its_path(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_params(path, "brew")
    assert "params.yaml" in str(caught.value)


def test_a_params_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not YAML"):
        read_params(path, "brew")


def test_an_assigned_value_that_is_no_yaml_is_refused_in_one_line():
    with pytest.raises(SettingsError, match=r"--set min_score=\[1: .*not YAML") as caught:
        parse_assignments(["min_score=[1"])
    assert "\n" not in str(caught.value)


def test_a_params_file_without_the_section_leaves_the_defaults(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("select: {x: 1}\n")
    assert read_params(path, "brew") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", 123),
        ("1:30", "1:30"),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("2026-01-31", "2026-01-31"),
        ("-.5", -0.5),
        ("no", False),
    ],
)
def test_a_value_in_a_params_file_is_what_is_written(tmp_path, text, value):
    path = tmp_path / "params.yaml"
    path.write_text(f"brew: {{label: {text}}}\n")
    assert read_params(path, "brew") == {"label": value}


def test_a_section_may_take_over_another(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("select: &s {x: 1, y: 2}\nbrew: {<<: *s, y: 3}\n")
    assert read_params(path, "brew") == {"x": 1, "y": 3}
