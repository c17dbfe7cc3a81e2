"""Boxes and masks of stored pixels are turned with their photograph; other pictures are refused."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.deduplicate.manifests import (
    PlacementError,
    Reading,
    brought_upright,
    convention_of,
    has_shape,
    pixels_of,
)
from pixclip.masks import Rle, decode_mask, encode_mask, mask_box, turn_mask

WIDTH, HEIGHT = 48, 36  # as stored


def photograph(orientation, width=WIDTH, height=HEIGHT):
    upright = (height, width) if orientation >= 5 else (width, height)
    return {
        "width_px": upright[0],
        "height_px": upright[1],
        "stored_width": width,
        "stored_height": height,
        "orientation": orientation,
    }


def region(width, height, url="file:///a.jpg", mask=None):
    rle = encode_mask(mask) if mask is not None else None
    return {
        "url": url,
        "declared_size": [height, width],
        "box_norm": [0.25, 0.5, 0.5, 0.75],
        "point_norm": None,
        "mask_counts": rle.counts if rle else None,
        "mask_size": [height, width] if rle else None,
    }


def reason_of(row, image, **reading):
    with pytest.raises(PlacementError) as caught:
        brought_upright(row, image, Reading(**reading), Counter())
    return caught.value


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_box_and_a_mask_of_stored_pixels_turn_with_their_photograph(orientation):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[18:27, 12:24] = True
    counts = Counter()
    row = brought_upright(
        region(WIDTH, HEIGHT, mask=mask), photograph(orientation), Reading(), counts
    )
    upright = turn_mask(mask, orientation)
    found = decode_mask(Rle(*row["mask_size"], row["mask_counts"]))
    assert np.array_equal(found, upright)
    assert row["mask_size"] == [WIDTH, HEIGHT]
    in_pixels = np.multiply(row["box_norm"], (HEIGHT, WIDTH, HEIGHT, WIDTH))
    assert tuple(in_pixels) == pytest.approx(mask_box(upright))
    assert counts == {"turned": 1}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_upright_pixels_stays(orientation):
    image = photograph(orientation)
    row = region(image["width_px"], image["height_px"])
    assert brought_upright(row, image, Reading("upright"), Counter()) == row


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_the_size_cannot_tell_the_source_does(orientation):
    row, counts = region(WIDTH, HEIGHT), Counter()
    turned = brought_upright(row, photograph(orientation), Reading("stored"), counts)
    assert turned["box_norm"] != row["box_norm"]
    assert counts == {"turned": 1, "read_as_stored": 1}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_square_that_nobody_tells_of_is_refused_with_advice(orientation):
    error = reason_of(region(40, 40), photograph(orientation, 40, 40))
    assert error.reason == "orientation_undecided"
    assert "deduplicate.turned_boxes" in error.detail


@pytest.mark.parametrize("url", ["file:///a.jpg", "s3://mine/a.jpg"])
@pytest.mark.parametrize("size", [(2 * WIDTH, 2 * HEIGHT), (WIDTH - 1, HEIGHT), (HEIGHT, WIDTH)])
def test_an_image_of_ones_own_has_the_declared_size_or_is_refused_with_both(url, size):
    error = reason_of(region(*size, url=url), photograph(1))
    assert error.reason == "image_size_mismatch"
    assert f"declared {size[0]} x {size[1]}, but the image is {WIDTH} x {HEIGHT}" in error.detail


@pytest.mark.parametrize("size", [(2 * WIDTH, 2 * HEIGHT), (WIDTH * 7 // 3, HEIGHT * 7 // 3)])
def test_the_web_may_serve_another_size_of_the_same_picture(size):
    row = region(*size, url="https://example.org/a.jpg")
    assert brought_upright(row, photograph(1), Reading(), Counter()) == row
    assert brought_upright(row, photograph(6), Reading(), Counter()) != row


def test_the_settings_say_whose_images_may_be_resized():
    own, web = (region(96, 72, url=url) for url in ("s3://mine/a.jpg", "https://example.org/a.jpg"))
    assert "deduplicate.resized_images=all" in reason_of(own, photograph(1)).detail
    assert brought_upright(own, photograph(1), Reading(resized="all"), Counter()) == own
    assert reason_of(web, photograph(1), resized="none").reason == "image_size_mismatch"
    other_shape = region(96, 96, url="s3://mine/a.jpg")
    assert reason_of(other_shape, photograph(1), resized="all").reason == "image_size_mismatch"


def test_the_web_may_not_serve_a_picture_of_another_shape():
    error = reason_of(region(480, 480, url="https://example.org/a.jpg"), photograph(6))
    assert error.reason == "image_size_mismatch"
    assert "36 x 48 (stored as 48 x 36)" in error.detail
    assert "resized_images" not in error.detail  # no setting lets it in


def test_a_mask_that_cannot_be_turned_is_damaged():
    row = region(WIDTH, HEIGHT) | {"mask_counts": "0", "mask_size": [HEIGHT, WIDTH]}
    assert reason_of(row, photograph(8)).reason == "mask_damaged"


@given(st.integers(60, 5000), st.integers(60, 5000), st.floats(0.05, 1.0), st.data())
def test_a_picture_made_smaller_keeps_its_shape_however_it_is_rounded(width, height, scale, data):
    rounding = st.sampled_from([np.floor, np.ceil, np.round])
    smaller = tuple(max(1, int(data.draw(rounding)(side * scale))) for side in (width, height))
    assert has_shape((width, height), smaller)
    assert has_shape(smaller, (width, height))


@pytest.mark.parametrize(
    ("votes", "convention"),
    [
        ({}, ""),
        ({"either": 9, "neither": 9}, ""),
        ({"stored": 1}, "stored"),
        ({"upright": 12, "stored": 1, "either": 5}, "upright"),
        ({"upright": 3, "stored": 2}, ""),
    ],
)
def test_the_photographs_that_tell_speak_for_the_others_if_they_agree(votes, convention):
    assert convention_of(votes) == convention


def test_an_image_without_an_orientation_is_never_undecided():
    assert pixels_of([40, 40], photograph(1, 40, 40), "file:///a.jpg") == "upright"
