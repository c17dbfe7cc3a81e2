"""Which boxes become parts: geometry and choice as plain functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.detect_parts.choosing import area_of, choose_parts, cut_box, judge_box
from components.data.detect_parts.detector import Detection, Scores, detections_of
from components.data.detect_parts.settings import PartRules

RULES = PartRules(min_inside_share=0.8, max_object_share=0.5, min_side_px=8)
OBJECT = (100.0, 100.0, 300.0, 200.0)
SIDES = st.floats(0, 400, width=32)


@st.composite
def boxes(draw):
    x1, x2 = sorted((draw(SIDES), draw(SIDES)))
    y1, y2 = sorted((draw(SIDES), draw(SIDES)))
    return x1, y1, x2, y2


DETECTIONS = st.lists(
    st.builds(Detection, st.integers(0, 4), st.floats(0.1, 1), boxes()), max_size=30
)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((120, 120, 160, 150), ""),
        ((90, 120, 140, 150), ""),  # 80 % inside
        ((89, 120, 140, 150), "off_object"),
        ((0, 0, 50, 50), "off_object"),
        ((100, 100, 200, 200), ""),  # half of the object
        ((100, 100, 201, 200), "whole_object"),
        (OBJECT, "whole_object"),
        ((120, 120, 128, 160), ""),
        ((120, 120, 127.9, 160), "tiny_box"),
        ((120, 120, 120, 160), "tiny_box"),
        ((float("nan"), 120, 150, 160), "off_object"),
    ],
)
def test_a_box_that_is_no_part_is_refused_with_its_reason(box, reason):
    assert judge_box(Detection(0, 0.9, box), OBJECT, RULES).reason == reason


def test_what_passes_the_object_is_cut_off():
    choice = judge_box(Detection(0, 0.9, (90, 120, 140, 150)), OBJECT, RULES)
    assert choice.detection.box == (100, 120, 140, 150)


def test_the_best_box_that_keeps_the_rules_wins_over_better_ones_that_do_not():
    found = [
        Detection(1, 0.9, OBJECT),
        Detection(1, 0.5, (120, 120, 160, 150)),
        Detection(1, 0.7, (170, 120, 210, 150)),
        Detection(0, 0.4, (0, 0, 50, 50)),
        Detection(0, 0.6, OBJECT),
    ]
    first, second = choose_parts(found, OBJECT, RULES)
    assert (first.reason, first.detection.score) == ("whole_object", 0.6)
    assert (second.reason, second.detection) == ("", found[2])


@given(DETECTIONS)
def test_a_part_that_is_kept_keeps_every_rule(found):
    for choice in choose_parts(found, OBJECT, RULES):
        box = choice.detection.box
        if not choice.reason:
            assert cut_box(box, OBJECT) == box
            assert min(box[2] - box[0], box[3] - box[1]) >= RULES.min_side_px
            assert area_of(box) <= RULES.max_object_share * area_of(OBJECT)


@given(DETECTIONS)
def test_every_part_with_boxes_is_chosen_once_by_the_best_that_may_be(found):
    chosen = choose_parts(found, OBJECT, RULES)
    assert [choice.detection.query for choice in chosen] == sorted({one.query for one in found})
    for choice in chosen:
        rivals = [one for one in found if one.query == choice.detection.query]
        good = [one.score for one in rivals if not judge_box(one, OBJECT, RULES).reason]
        assert bool(good) == (not choice.reason)
        assert choice.detection.score == max(good or [one.score for one in rivals])


@given(DETECTIONS, st.randoms(use_true_random=False))
def test_the_order_of_a_detectors_answer_does_not_matter(found, random):
    shuffled = random.sample(found, len(found))
    assert choose_parts(shuffled, OBJECT, RULES) == choose_parts(found, OBJECT, RULES)


@given(boxes(), boxes())
def test_a_cut_lies_in_both_boxes_and_is_the_same_both_ways(one, other):
    cut = cut_box(one, other)
    assert area_of(cut) == area_of(cut_box(other, one)) >= 0
    if area_of(cut):
        assert cut == cut_box(cut, one) == cut_box(cut, other)


def test_a_box_answers_the_query_whose_words_it_fits_best():
    """`wing` stands in two queries: the better word alone does not decide."""
    best = np.array([[0.8, 0.7], [0.2, 0.1], [0.9, 0.1], [0.31, 0.3]], np.float32)
    mean = np.array([[0.4, 0.7], [0.2, 0.1], [0.2, 0.1], [0.31, 0.3]], np.float32)
    corners = np.arange(16, dtype=np.float32).reshape(4, 4)
    found = detections_of(Scores(best, mean, corners), 0.3, 0.25)
    assert [(one.query, one.score) for one in found] == [(1, 0.7), (0, 0.31)]
    assert found[1].box == (12, 13, 14, 15)


def test_boxes_whose_scores_are_no_numbers_are_no_detections():
    nothing = np.full((2, 3), np.nan, np.float32)
    assert detections_of(Scores(nothing, nothing, np.zeros((2, 4), np.float32)), 0.3, 0.0) == []
