import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.deduplicate.step import to_pixels

COORDINATE = st.floats(-0.5, 1.5)


def region(box, mask_size=None):
    return {
        "box_norm": box,
        "mask_counts": "x" if mask_size else None,
        "mask_size": mask_size,
    }


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.0, 0.0, 1.0, 1.0], (0.0, 0.0, 200.0, 100.0)),
        ([0.25, 0.5, 0.75, 1.0], (50.0, 50.0, 150.0, 100.0)),
        ([-0.5, 0.5, 0.5, 1.5], (0.0, 50.0, 100.0, 100.0)),
    ],
)
def test_a_box_comes_to_pixels_and_is_clipped(box, expected):
    placed = to_pixels(region(box), 200, 100, min_box_side_px=16)
    assert (placed.reason, placed.box_xyxy) == ("", pytest.approx(expected))


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 0.01, 1.0],
        [0.0, 0.0, 1.0, 0.01],
        [0.9, 0.0, 0.1, 1.0],
        [1.1, 0.0, 1.5, 1.0],
        [0.95, 0.0, 2.0, 1.0],
        [math.nan, 0.0, 1.0, 1.0],
    ],
)
def test_a_box_that_is_tiny_in_the_real_image_is_dropped(box):
    assert to_pixels(region(box), 200, 100, min_box_side_px=16).reason == "tiny_box"


@pytest.mark.parametrize(
    ("mask_size", "reason"),
    [([100, 200], ""), ([200, 100], "mask_size_mismatch"), ([50, 100], "mask_size_mismatch")],
)
def test_a_mask_must_have_the_size_of_the_image(mask_size, reason):
    assert to_pixels(region([0, 0, 1, 1], mask_size), 200, 100, 16).reason == reason


@given(
    st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_an_accepted_box_lies_inside_the_image_and_is_large_enough(box, width_px, height_px):
    placed = to_pixels(region(list(box)), width_px, height_px, min_box_side_px=16)
    if not placed.reason:
        x1, y1, x2, y2 = placed.box_xyxy
        assert 0 <= x1 <= x2 - 16 < x2 <= width_px
        assert 0 <= y1 <= y2 - 16 < y2 <= height_px
