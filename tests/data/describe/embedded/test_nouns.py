"""Phrases from the web become nouns that sentences can be built around."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.describe.embedded.words import another, clean_phrase, noun_of


@pytest.mark.parametrize(
    ("phrase", "mention", "reference", "is_plural"),
    [
        ("a red apple", "a red apple", "the red apple", False),
        ("A red apple", "a red apple", "the red apple", False),
        ("an ear of sweet yellow corn", "an ear of sweet yellow corn", "the ear", False),
        ("a flower covered in dew drops", "a flower covered in dew drops", "the flower", False),
        ("a pair of cherries", "a pair of cherries", "the pair of cherries", False),
        ("two wild boars", "two wild boars", "the two wild boars", True),
        ("some orange flowers", "some orange flowers", "the orange flowers", True),
        ("some food", "some food", "the food", False),
        ("dog", "the dog", "the dog", False),
        ("Dog", "the dog", "the dog", False),
        ("people", "the people", "the people", True),
        ("glasses", "the glasses", "the glasses", True),
        ("grass", "the grass", "the grass", False),
        ("Mickey Mouse", "Mickey Mouse", "Mickey Mouse", False),
        ("his left hand", "his left hand", "his left hand", False),
        ("an F-22 Raptor", "an F-22 Raptor", "the F-22 Raptor", False),
        ("3 cars", "3 cars", "the 3 cars", True),
    ],
)
def test_a_phrase_becomes_a_noun(phrase, mention, reference, is_plural):
    noun = noun_of(clean_phrase(phrase))
    assert (noun.mention, noun.reference, noun.is_plural) == (mention, reference, is_plural)


def test_a_capital_in_the_middle_of_the_caption_marks_a_name():
    assert noun_of("Paris", "a view of Paris at night").mention == "Paris"
    assert noun_of("Dog", "Dog on a lawn").mention == "the dog"


@pytest.mark.parametrize(
    ("phrase", "pronoun"),
    [("a man in a hat", "This person"), ("a baby gnu", "It"), ("two women", "They")],
)
def test_people_are_not_called_it(phrase, pronoun):
    assert noun_of(phrase).pronoun == pronoun


def test_a_second_thing_of_the_same_name_is_another_one():
    assert another(noun_of("a flower")) == "another flower"
    assert another(noun_of("two flowers")) == "the other two flowers"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a \t red\napple. ", "a red apple"),
        ("a <b onclick='x()'>red</b> apple", "a red apple"),
        ("a dog <script", "a dog"),
        ("a dog https://example.test/x?y=1 barking", "a dog barking"),
        ("a\u200bdog\x00\x1b[31m", "a dog 31m"),
        ("&lt;img&gt; cat", "lt img gt cat"),
        ("a plumber’s wrench", "a plumber’s wrench"),
        ("{{ cat }} `ls`", "cat ls"),
        ("...", ""),
    ],
)
def test_a_phrase_is_cleaned(raw, clean):
    assert clean_phrase(raw) == clean


@given(st.text())
def test_a_clean_phrase_holds_no_markup_and_stays_as_it_is(raw):
    phrase = clean_phrase(raw)
    assert not set(phrase) & set("<>&{}[]|`\\\n\r\t\x00")
    assert clean_phrase(phrase) == phrase
    if phrase:
        assert noun_of(phrase).mention
