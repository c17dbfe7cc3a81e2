import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from components.data.segment.segmenter import grow_box, judge_mask
from components.data.segment.settings import MaskRules
from pixclip.masks import box_mask

BOX = (20.0, 10.0, 60.0, 40.0)
RULES = MaskRules(box_margin_share=0.1, min_area_px=50, min_box_share=0.1, max_image_share=0.9)


def filled(box, height_px=60, width_px=80):
    return box_mask(box, height_px, width_px)


def test_a_good_mask_passes_unchanged():
    verdict = judge_mask(filled((25, 15, 50, 35)), BOX, RULES)
    assert verdict.reason == ""
    assert np.array_equal(verdict.mask, filled((25, 15, 50, 35)))


def test_what_lies_past_the_margin_is_cut_off():
    verdict = judge_mask(filled((0, 0, 80, 40)), BOX, RULES)
    assert verdict.reason == ""
    assert np.array_equal(verdict.mask, filled((16, 7, 64, 40)))


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (None, "empty_mask"),
        ((0, 0, 10, 60), "empty_mask"),  # of something else in the image
        ((20, 10, 27, 17), "small_mask"),  # 49 px
        ((20, 10, 30, 21), "small_mask"),  # 110 of 1200 px
        ((20, 10, 30, 22), ""),  # 120 of 1200 px
    ],
)
def test_a_mask_that_is_too_small_is_refused_with_its_reason(drawn, reason):
    mask = np.zeros((60, 80), dtype=bool) if drawn is None else filled(drawn)
    assert judge_mask(mask, BOX, RULES).reason == reason


def test_a_mask_of_the_whole_image_is_refused():
    whole = (0.0, 0.0, 80.0, 60.0)
    assert judge_mask(filled(whole), whole, RULES).reason == "whole_image_mask"
    assert judge_mask(filled((0, 0, 80, 54)), whole, RULES).reason == ""


@given(
    hnp.arrays(bool, (30, 40)),
    st.tuples(st.integers(0, 39), st.integers(0, 29), st.integers(1, 40), st.integers(1, 30)),
)
def test_no_mask_reaches_past_its_box_and_margin_and_none_passes_empty(mask, corner_and_size):
    x, y, width, height = corner_and_size
    box = (float(x), float(y), float(x + width), float(y + height))
    verdict = judge_mask(mask, box, MaskRules(min_area_px=1, min_box_share=0))
    allowed = box_mask(grow_box(box, MaskRules().box_margin_share), 30, 40)
    assert not (verdict.mask & ~allowed).any()
    assert not (verdict.mask & ~mask).any()
    assert verdict.reason or verdict.mask.any()
