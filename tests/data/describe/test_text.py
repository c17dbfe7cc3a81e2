"""Texts from outside: normalised in no time, whatever they are made of."""

import random
import time
import unicodedata

import pytest

from components.data.describe.embedded.words import clean_phrase, noun_of
from components.data.llm.prompt import MAX_MARKS, as_data, one_line


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "cafe\u0301",
        "가각",
        "e\u0301\u0323\u0302",
        "नमस्ते",
        "שָׁלוֹם",
        "a\u0301" * 50,
        "👩‍🚀 waves",
    ],
)
def test_texts_of_any_script_are_only_composed(text):
    hidden = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
    plain = unicodedata.normalize("NFC", text)
    seen = "".join(" " if unicodedata.category(char) in hidden else char for char in plain)
    assert one_line(text) == " ".join(seen.split())


MARKS = ["\u0315\u0300", "\u0f73", "\uff9e\u0300", "\u0344\u0315", "\u0345\u0300", "\u1dfa\u0301"]


@pytest.mark.parametrize("marks", MARKS, ids=ascii)
def test_a_text_of_marks_takes_no_time(marks):
    started_s = time.process_time()
    text = one_line("a" + marks * (200_000 // len(marks)))
    assert len(text) <= 1 + 3 * MAX_MARKS
    clean_phrase("a" + marks * 100_000)
    as_data("a" + marks * 100_000)
    assert time.process_time() - started_s < 2.0


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "www." * 250_000,
        "<" * 500_000,
        "://" * 300_000,
        "'" * 500_000,
        "ﷺ" * 100_000,
    ],
)
def test_a_phrase_of_a_megabyte_takes_no_time(text):
    started_s = time.process_time()
    phrase = clean_phrase(text)
    assert len(phrase) <= 2000
    if phrase:
        noun_of(phrase, text)
    assert time.process_time() - started_s < 2.0


def test_any_phrase_becomes_a_noun_or_nothing():
    alphabet = "aA zZ ofthe'’-.,%\t\n<>&;:/0123éß가\u0301\u200b\ud7ff٣²ǅ"
    moments = random.Random(5)
    for _ in range(3000):
        phrase = clean_phrase("".join(moments.choices(alphabet, k=moments.randint(0, 24))))
        if phrase:
            noun = noun_of(phrase, phrase)
            assert noun.mention
            assert noun.reference
