"""A wrong caption is the right one with one attribute changed, and nothing that may be true."""

import pytest

from components.data.describe.hard_negatives.rules import Original, changed_words, find_flaw

CAPTION, PHRASE = "the left wing with two dark brown bars near its tip", "left wing"


@pytest.mark.parametrize(
    ("wrong", "attribute"),
    [
        ("the left wing with two pale yellow bars near its tip", "colour"),
        ("the left wing with three dark brown bars near its tip", "number"),
        ("the left wing with two dark brown bars near its base", "part"),
        ("the left leg with two dark brown bars near its tip", "part"),
        ("the right wing with two dark brown bars near its tip", "side"),
    ],
)
def test_one_changed_attribute_is_a_wrong_caption(wrong, attribute):
    assert find_flaw(Original(CAPTION, PHRASE), wrong, attribute) is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("The left wing, with two dark brown bars near its tip.", "same_text"),
        ("the left wing with dark brown bars near its tip", "not_one_change"),
        ("the left wing with two long dark brown bars near its tip", "not_one_change"),
        ("the left wing with three white bars near its tip", "not_one_change"),
        ("the left wing with two dark brown spots near its base", "not_one_change"),
        ("a wing on the left whose tip has two bars of dark brown", "not_one_change"),
        ("the left wing with two dark green spots near its tip", "not_one_change"),
        ("the left leg with two dark brown bars near its tip", "lost_name"),
        ("the left wing with two <b>red</b> bars near its tip", "markup"),
    ],
)
def test_anything_else_is_left_out_with_a_reason(wrong, reason):
    flaw = find_flaw(Original(CAPTION, PHRASE), wrong, "colour")
    assert flaw is not None
    assert flaw.reason == reason


@pytest.mark.parametrize(
    ("caption", "phrase", "wrong", "reason"),
    [
        ("a green pepper", "a green pepper", "a purple flower", "not_one_change"),
        ("a camera", "a camera", "a purple flower", "not_one_change"),
        ("a tall tree", "a tree", "a short tree", None),
        ("a black and white tail", "tail", "a white and black tail", "not_one_change"),
        ("a red beak", "beak", "a striped beak", "not_one_change"),
        ("a gray beak", "beak", "a grey beak", "same_text"),
        ("an orange beak", "beak", "a very dark red beak", None),
    ],
)
def test_known_words_must_be_of_one_attribute(caption, phrase, wrong, reason):
    flaw = find_flaw(Original(caption, phrase), wrong, "part")
    assert (flaw.reason if flaw else None) == reason


def test_a_text_that_the_region_has_already_is_repeated():
    others = [("a", "blue", "beak")]
    flaw = find_flaw(Original("a red beak", "beak"), "A blue beak.", "colour", others)
    assert flaw is not None
    assert flaw.reason == "repeated"


@pytest.mark.parametrize(
    ("phrases", "reason"),
    [
        (["left eye", "right eye"], "true_of_twin"),
        (["left eye", "Right  eye"], "true_of_twin"),
        (["left eye", "right wing"], None),
    ],
)
def test_the_other_side_is_no_lie_where_the_image_shows_it_too(phrases, reason):
    original = Original("a round left eye", "left eye", phrases)
    flaw = find_flaw(original, "a round right eye", "side")
    assert (flaw.reason if flaw else None) == reason


def test_changed_words_are_those_between_the_common_ends():
    before, after = (
        ["a", "red", "and", "a", "blue", "tail"],
        ["an", "orange", "and", "a", "blue", "tail"],
    )
    assert changed_words(before, after) == (("red",), ("orange",))
    assert changed_words(["blue", "blue", "tail"], ["blue", "tail"]) == (("blue",), ())
