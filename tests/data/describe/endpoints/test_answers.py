"""Answers are read out of whatever a model writes, and nothing makes the reader fall over."""

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.describe.answers import (
    SCHEMAS,
    Caption,
    InvalidAnswerError,
    Verdict,
    parse_answer,
    response_format,
    without_thinking,
)


@given(st.text(max_size=300), st.sampled_from(list(SCHEMAS.values())))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_answer_or_an_invalid_answer(text, schema):
    for content in (text, "{" + text, '{"caption": ' + text):
        with contextlib.suppress(InvalidAnswerError):
            assert isinstance(parse_answer(content, False, schema), schema)


@given(st.text(min_size=1, max_size=100))
@settings(deadline=None)
def test_captions_come_out_on_one_line_without_invisible_characters(text):
    try:
        caption = parse_answer(json.dumps({"caption": text}), False, Caption).caption
    except InvalidAnswerError:
        assert not "".join(c for c in text if c.isprintable() and not c.isspace())
        return
    assert caption.isprintable()
    assert caption == " ".join(caption.split())


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("<think>a</think>b<think>c</think>d", "b d"),
        ("<THINKING>a\nb</THINKING>\nc", "c"),
        ("x<think>a", "x"),
    ],
)
def test_thinking_is_cut_out_closed_opened_or_left_open(content, left):
    assert without_thinking(content) == left


def test_the_schema_that_is_asked_for_is_strict():
    for schema in SCHEMAS.values():
        asked = response_format(schema)["json_schema"]
        assert asked["strict"] is True
        assert asked["schema"]["additionalProperties"] is False
        assert set(asked["schema"]["required"]) == set(schema.model_fields)


def test_a_verdict_with_another_key_or_without_one_is_invalid():
    good = '{"consistent": true, "only_visible": true, "valid_english": false, "reason": "x"}'
    assert parse_answer(good, False, Verdict).valid_english is False
    for bad in (good.replace("reason", "why"), good.replace("true", '"maybe"', 1)):
        with pytest.raises(InvalidAnswerError):
            parse_answer(bad, False, Verdict)


def test_thinking_that_opens_again_and_again_takes_no_time():
    started_s = time.monotonic()
    assert without_thinking("<think>" * 100_000) == ""
    assert without_thinking("<think>a</think>x" + "<think>" * 100_000) == "x"
    assert time.monotonic() - started_s < 5.0
