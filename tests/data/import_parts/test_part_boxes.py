"""The rule that makes boxes of points, on whatever points there are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.data.import_parts.part_boxes import BoxRule, boxes_of_points, cut_by_mask

RULE = BoxRule()
WIDTH, HEIGHT = 400, 300
IMAGE = (0.0, 0.0, float(WIDTH), float(HEIGHT))
OBJECT = (100.0, 50.0, 300.0, 250.0)
UNIT = 200.0
points_inside = st.tuples(st.floats(100, 299), st.floats(50, 249))
points_anywhere = st.tuples(st.floats(0, WIDTH - 1), st.floats(0, HEIGHT - 1))


@settings(deadline=None)  # of a busy machine
@given(st.lists(points_anywhere, max_size=12))
def test_boxes_stay_inside_the_photograph_and_near_the_object(points):
    margin = RULE.object_margin_share * UNIT
    for box in boxes_of_points(points, OBJECT, IMAGE, RULE):
        if box is not None:
            assert 0 <= box[0] < box[2] <= WIDTH
            assert 0 <= box[1] < box[3] <= HEIGHT
            assert box[0] >= OBJECT[0] - margin
            assert box[3] <= OBJECT[3] + margin


@settings(deadline=None)  # of a busy machine
@given(st.lists(points_inside, min_size=1, max_size=12))
def test_a_box_holds_its_point_and_no_side_passes_the_limits(points):
    boxes = boxes_of_points(points, OBJECT, IMAGE, RULE)
    for (x, y), box in zip(points, boxes, strict=True):
        assert box is not None
        assert box[0] <= x <= box[2]
        assert box[1] <= y <= box[3]
        assert max(box[2] - box[0], box[3] - box[1]) <= RULE.max_side_share * UNIT + 1e-6


@settings(deadline=None)  # of a busy machine
@given(st.lists(points_inside, min_size=1, max_size=8), st.floats(0.25, 4))
def test_a_photograph_of_another_size_has_boxes_of_that_size(points, scale):
    def scaled(values):
        return tuple(value * scale for value in values)

    rule = RULE.model_copy()
    # Nearer than a pixel is one place, whatever the size: leave those out.
    apart = [p for n, p in enumerate(points) if all(math.dist(p, q) > 8 for q in points[:n])]
    boxes = boxes_of_points(apart, OBJECT, IMAGE, rule)
    others = boxes_of_points([scaled(p) for p in apart], scaled(OBJECT), scaled(IMAGE), rule)
    for box, other in zip(boxes, others, strict=True):
        assert other == pytest.approx(scaled(box))


@settings(deadline=None)  # of a busy machine
@given(st.lists(points_inside, min_size=2, max_size=8), st.randoms())
def test_the_order_of_the_parts_does_not_matter(points, random):
    shuffled = random.sample(points, len(points))
    boxes = dict(zip(points, boxes_of_points(points, OBJECT, IMAGE, RULE), strict=True))
    assert boxes == dict(zip(shuffled, boxes_of_points(shuffled, OBJECT, IMAGE, RULE), strict=True))


@settings(deadline=None)  # of a busy machine
@given(st.lists(points_inside, min_size=1, max_size=8))
def test_a_mirrored_photograph_has_mirrored_boxes(points):
    def mirrored(box):
        return WIDTH - box[2], box[1], WIDTH - box[0], box[3]

    boxes = boxes_of_points(points, OBJECT, IMAGE, RULE)
    others = boxes_of_points([(WIDTH - x, y) for x, y in points], mirrored(OBJECT), IMAGE, RULE)
    for box, other in zip(boxes, others, strict=True):
        assert other == pytest.approx(mirrored(box))


def test_boxes_of_nearest_neighbours_touch_with_a_factor_of_one():
    rule = BoxRule(neighbour_factor=1, min_side_share=0.01)
    first, second = boxes_of_points([(150, 150), (170, 155)], OBJECT, IMAGE, rule)
    assert first[2] == second[0] == 160


def test_a_lone_part_has_a_box_between_the_smallest_and_the_largest():
    ((x1, _, x2, _),) = boxes_of_points([(200, 150)], OBJECT, IMAGE, RULE)
    assert x2 - x1 == pytest.approx(math.sqrt(RULE.min_side_share * RULE.max_side_share) * UNIT)


def test_a_part_far_from_the_object_has_no_box():
    assert boxes_of_points([(10, 10), (200, 150)], OBJECT, IMAGE, RULE)[0] is None


@settings(deadline=None)  # of a busy machine
@given(st.lists(st.booleans(), min_size=30, max_size=30), points_anywhere)
def test_what_a_mask_leaves_of_a_box_is_tight_around_its_pixels(pixels, point):
    mask = np.array(pixels).reshape(5, 6)
    x, y = point[0] * 6 / WIDTH, point[1] * 5 / HEIGHT
    box = (max(x - 1.5, 0), max(y - 1.5, 0), min(x + 1.5, 6), min(y + 1.5, 5))
    cut = cut_by_mask(box, mask)
    if cut is None:
        return
    (x1, y1, x2, y2), inside = cut
    assert not (inside & ~mask).any()
    rows, columns = inside.nonzero()
    assert x1 >= box[0] - 1e-9
    assert y2 <= box[3] + 1e-9
    assert x1 <= columns.min() + 0.5
    assert x2 >= columns.max() + 0.5
    assert y1 <= rows.min() + 0.5


def test_a_smallest_side_above_the_largest_is_refused():
    with pytest.raises(ValidationError, match=r"min_side_share 0\.5 is more than max_side_share"):
        BoxRule(min_side_share=0.5, max_side_share=0.3)
