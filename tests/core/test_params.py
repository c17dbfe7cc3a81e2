"""Params files are written from the settings' classes, and keep the values that people chose."""

import json

import pytest

from components.core.errors import SettingsError
from components.core.params import params_text
from components.core.settings import read_params
from components.core.step import load_step


@pytest.fixture
def params(tmp_path):
    """A params file with a text that is written anew."""

    def write(text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        path.write_text(params_text(path))
        return path

    return write


def test_an_empty_section_is_filled_with_the_defaults(params):
    path = params("select: {}\n")
    defaults = load_step("select").settings_type().model_dump(mode="json")
    assert read_params(path, "select") == defaults
    assert "# Keep the regions that are worth downloading" in path.read_text()
    assert "\n  max_phrase_chars: 120  # longest phrase in characters\n" in path.read_text()


def test_values_and_the_first_comment_stay(params):
    path = params("# Ours.\n\nselect:\n  min_score: 0.8  # as we agreed\n")
    assert path.read_text().startswith("# Ours.\n\n")
    assert read_params(path, "select")["min_score"] == 0.8


def test_two_files_give_a_step_other_values(params, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("select: {min_score: 0.9}\n")
    path = params("select: {min_score: 0.7}\n")
    assert read_params(path, "select")["min_score"] == 0.7
    assert read_params(other, "select")["min_score"] == 0.9


def test_what_is_written_once_stays_as_it_is(params):
    path = params("ingest: {allowed_hosts: [a.example], max_bytes: 30_000_000}\n")
    text = path.read_text()
    assert params_text(path) == text
    assert "max_bytes: 30_000_000  #" in text


@pytest.mark.parametrize("text", ["", "no", "1e3", "0123", "1:30", "a: b", "x #1", "ä", '"', "~"])
def test_a_text_is_read_as_the_very_text(params, text):
    path = params(json.dumps({"pack": {"licence_note": text}}))
    assert read_params(path, "pack")["licence_note"] == text


def test_settings_of_the_running_alone_come_last_and_are_told(params):
    text = params("ingest: {}\n").read_text()
    decisive, _, running = text.partition("how the step runs, not what it makes")
    assert "\n  max_bytes:" in decisive
    assert "\n  concurrency:" in running


def test_a_setting_that_is_gone_is_refused_by_its_name(params):
    with pytest.raises(SettingsError, match=r"select\.min_scor: no such setting"):
        params("select: {min_scor: 0.5}\n")
