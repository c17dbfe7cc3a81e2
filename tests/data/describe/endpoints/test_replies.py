"""What servers send back, odd things included."""

import email.utils
import json
import time

import pytest
from pydantic import ValidationError

from components.data.llm.replies import raw_answer, retry_after_s


def reply(**message: object) -> bytes:
    usage = {"prompt_tokens": None, "completion_tokens": -3}
    return json.dumps({"choices": [{"message": message}], "usage": usage}).encode()


def test_an_answer_without_token_counts_is_still_an_answer():
    answer = raw_answer(reply(content="hello"), 0.5)
    assert (answer.content, answer.prompt_tokens, answer.completion_tokens) == ("hello", 0, 0)


def test_a_refusal_field_is_read_as_the_answer():
    assert raw_answer(reply(content=None, refusal="I won't"), 0.5).content == "I won't"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"choices": []}', b"\xff", b'{"choices": [1]}']
)
def test_a_body_that_is_no_completion_is_refused(body):
    with pytest.raises(ValidationError):
        raw_answer(body, 0.5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2), ("-1", 0), ("nan", None), ("inf", None), ("soon", None), (None, None), ("0.5", 0.5)],
)
def test_retry_after_is_read_if_it_makes_sense(header, seconds):
    assert retry_after_s(header) == seconds


def test_retry_after_may_be_a_date():
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < retry_after_s(date) <= 31
