"""Where regions are: a mirrored scene swaps left and right and nothing else."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.describe.embedded.layout import measure_places
from components.data.describe.embedded.measure import measure_shape
from pixclip.masks import box_mask, encode_mask

WIDTH, HEIGHT = 160, 120
SWAPPED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
TURNED = {"upper": "lower", "lower": "upper", "above": "below", "below": "above"} | {
    "topmost": "lowest",
    "lowest": "topmost",
    "top": "bottom",
    "bottom": "top",
}


@st.composite
def boxes(draw):
    """Boxes of whole pixels inside the image."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        x1, y1 = draw(st.integers(0, WIDTH - 2)), draw(st.integers(0, HEIGHT - 2))
        x2, y2 = draw(st.integers(x1 + 1, WIDTH)), draw(st.integers(y1 + 1, HEIGHT))
        found.append((float(x1), float(y1), float(x2), float(y2)))
    return found


def places_of(found):
    masks = [box_mask(box, HEIGHT, WIDTH) for box in found]
    areas = [int(mask.sum()) for mask in masks]
    return measure_places(found, areas, [encode_mask(mask) for mask in masks], WIDTH, HEIGHT)


def renamed(place, names):
    """A place with these words exchanged."""

    def swap(word):
        return names.get(word, word)

    return replace(
        place,
        column=swap(place.column),
        row=swap(place.row),
        touched_edges=tuple(sorted(map(swap, place.touched_edges))),
        relations=tuple(
            replace(r, horizontal=swap(r.horizontal), vertical=swap(r.vertical))
            for r in place.relations
        ),
        ranks=tuple(sorted(map(swap, place.ranks))),
    )


@settings(deadline=None, max_examples=150)
@given(boxes())
def test_mirroring_the_scene_swaps_left_and_right(found):
    mirrored = [(WIDTH - x2, y1, WIDTH - x1, y2) for x1, y1, x2, y2 in found]
    expected = [renamed(place, SWAPPED) for place in places_of(found)]
    assert [renamed(place, {}) for place in places_of(mirrored)] == expected


@settings(deadline=None, max_examples=150)
@given(boxes())
def test_turning_the_scene_upside_down_swaps_above_and_below(found):
    turned = [(x1, HEIGHT - y2, x2, HEIGHT - y1) for x1, y1, x2, y2 in found]
    expected = [renamed(place, TURNED) for place in places_of(found)]
    assert [renamed(place, {}) for place in places_of(turned)] == expected


@settings(deadline=None, max_examples=150)
@given(boxes())
def test_relations_hold_against_the_boxes(found):
    for box, place in zip(found, places_of(found), strict=True):
        for relation in place.relations:
            other = found[relation.neighbour]
            shift_x = box[0] + box[2] - other[0] - other[2]
            shift_y = box[1] + box[3] - other[1] - other[3]
            assert relation.horizontal in ({"left", ""} if shift_x < 0 else {"right", ""})
            assert relation.vertical in ({"above", ""} if shift_y < 0 else {"below", ""})
            own, its = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            assert relation.size in ({"alike", "larger"} if own > its else {"alike", "smaller"})


@settings(deadline=None, max_examples=100)
@given(boxes())
def test_only_one_region_leads_a_rank(found):
    ranks = [rank for place in places_of(found) for rank in place.ranks]
    assert len(ranks) == len(set(ranks))


def test_three_things_in_a_row_are_told_apart():
    left, middle, right = places_of([(0, 50, 20, 70), (60, 45, 100, 75), (140, 50, 155, 65)])
    assert (left.column, left.row, left.touched_edges) == ("left", "middle", ("left",))
    assert left.ranks == ("leftmost",)
    assert [(r.neighbour, r.horizontal, r.vertical) for r in left.relations] == [
        (1, "left", ""),
        (2, "left", ""),
    ]
    assert middle.ranks == ("largest",)
    assert middle.relations[0].size == "larger"
    assert right.ranks == ("rightmost", "smallest")


def test_masks_that_share_pixels_overlap():
    over, under = places_of([(10, 10, 50, 50), (40, 40, 90, 90)])
    assert over.relations[0].is_overlapping
    assert under.relations[0].is_overlapping
    apart, _ = places_of([(10, 10, 50, 50), (50, 50, 90, 90)])
    assert not apart.relations[0].is_overlapping


def bar(angle_deg, length=90, thickness=14, size=121):
    """A bar through the middle; the angle goes upwards to the right."""
    ys, xs = np.mgrid[:size, :size] - size // 2
    angle = np.radians(angle_deg)
    along, across = xs * np.cos(angle) - ys * np.sin(angle), xs * np.sin(angle) + ys * np.cos(angle)
    return (abs(along) <= length / 2) & (abs(across) <= thickness / 2)


@settings(deadline=None, max_examples=60)
@given(st.floats(-80, 80))
def test_the_direction_of_a_bar_is_measured(angle_deg):
    shape = measure_shape(bar(angle_deg))
    assert abs(shape.angle_deg - angle_deg) < 1.5
    assert 4 < shape.elongation < 8
    assert shape.solidity > 0.85  # pixels make stairs on a slanted edge


def test_solidity_tells_a_cross_from_a_square_and_a_disc():
    square, cross = np.ones((60, 60), bool), np.zeros((60, 60), bool)
    cross[25:35], cross[:, 25:35] = True, True
    ys, xs = np.mgrid[:61, :61] - 30
    disc = xs**2 + ys**2 <= 30**2
    assert measure_shape(square).solidity == 1.0
    assert measure_shape(square).box_fill == 1.0
    assert measure_shape(cross).solidity < 0.6
    assert measure_shape(disc).solidity > 0.95
    assert abs(measure_shape(disc).box_fill - np.pi / 4) < 0.03
    assert measure_shape(disc).elongation < 1.01
