import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from pixclip.images import UPRIGHT
from pixclip.masks import (
    Rle,
    box_mask,
    clip_box,
    decode_mask,
    encode_box,
    encode_mask,
    mask_box,
    mask_iou,
    read_runs,
    rle_num_pixels,
    turn_box,
    turn_mask,
)

SIDES = st.integers(1, 40)
MASKS = hnp.arrays(bool, st.tuples(SIDES, SIDES))
COORDINATES = st.floats(-50, 100, allow_nan=False)
BOXES = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@given(MASKS)
def test_a_mask_survives_encoding(mask):
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@given(MASKS)
def test_an_encoding_is_what_pycocotools_reads(mask):
    rle = encode_mask(mask)
    assert np.array_equal(coco.decode(rle.as_coco()).astype(bool), mask)
    assert coco.area(rle.as_coco()) == mask.sum()


@given(MASKS)
def test_the_number_of_pixels_is_read_from_the_counts_alone(mask):
    assert rle_num_pixels(encode_mask(mask).counts) == mask.size


@given(MASKS)
def test_the_runs_of_an_encoding_are_its_mask(mask):
    runs = read_runs(encode_mask(mask))
    assert bool(runs) == mask.any()
    if runs:
        x1, y1, x2, y2 = box = runs.box()
        assert box == mask_box(mask)
        assert np.array_equal(runs.inside(box).T, mask[y1:y2, x1:x2])


@given(BOXES, SIDES, SIDES)
def test_the_encoding_of_a_box_is_that_of_its_mask(box, height, width):
    assert encode_box(box, height, width) == encode_mask(box_mask(box, height, width))


@given(MASKS, st.integers(1, 40))
def test_runs_for_an_image_of_another_size_are_refused(mask, extra):
    rle = encode_mask(mask)
    with pytest.raises(ValueError, match="another size or is damaged"):
        read_runs(Rle(rle.height_px, rle.width_px + extra, rle.counts))


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=30))
def test_the_number_of_pixels_agrees_with_pycocotools_for_any_runs(runs):
    height_px, width_px = 1, sum(runs) or 1
    runs = runs if sum(runs) else [1]
    rle = coco.frPyObjects({"size": [height_px, width_px], "counts": runs}, height_px, width_px)
    assert rle_num_pixels(rle["counts"].decode()) == coco.decode(rle).size


@given(MASKS, st.integers(1, 40))
def test_counts_for_an_image_of_another_size_are_refused(mask, extra):
    rle = encode_mask(mask)
    with pytest.raises(ValueError, match="another size or is damaged"):
        decode_mask(Rle(rle.height_px, rle.width_px + extra, rle.counts))


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_as_counts_is_refused_or_covers_the_image_exactly(counts):
    try:
        mask = decode_mask(Rle(7, 9, counts))
    except ValueError:
        return
    assert mask.shape == (7, 9)


@pytest.mark.parametrize(
    "counts",
    ["é", "~", "0 0", "o", "OOOOOOOOO1", "\x00", "n"],
    ids=["accent", "past the alphabet", "blank", "cut", "cut long", "nul", "unfinished"],
)
def test_damaged_counts_are_refused(counts):
    with pytest.raises(ValueError, match=r"COCO mask counts|damaged"):
        decode_mask(Rle(4, 4, counts))


def test_counts_that_would_write_past_the_buffer_are_refused():
    far = coco.frPyObjects({"size": [1000, 1000], "counts": [0, 1_000_000]}, 1000, 1000)
    with pytest.raises(ValueError, match="do not cover"):
        decode_mask(Rle(10, 10, far["counts"].decode()))


@given(MASKS.filter(lambda mask: mask.any()))
def test_a_masks_box_is_tight(mask):
    x1, y1, x2, y2 = map(int, mask_box(mask))
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    assert mask[y1].any()
    assert mask[y2 - 1].any()
    assert mask[:, x1].any()
    assert mask[:, x2 - 1].any()


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="empty mask"):
        mask_box(np.zeros((3, 3), dtype=bool))


@given(BOXES, SIDES, SIDES)
def test_a_clipped_box_is_inside_the_image_and_inside_the_box(box, height_px, width_px):
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    assert 0 <= x1 <= x2 <= width_px
    assert 0 <= y1 <= y2 <= height_px
    assert clip_box((x1, y1, x2, y2), height_px, width_px) == (x1, y1, x2, y2)


@given(SIDES, SIDES, st.data())
def test_the_mask_of_a_whole_pixel_box_has_that_box(height_px, width_px, data):
    x1, y1 = data.draw(st.integers(0, width_px - 1)), data.draw(st.integers(0, height_px - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width_px)), data.draw(st.integers(y1 + 1, height_px))
    box = (float(x1), float(y1), float(x2), float(y2))
    assert mask_box(box_mask(box, height_px, width_px)) == box


@given(BOXES, SIDES, SIDES)
def test_the_mask_of_any_box_has_the_size_of_the_image(box, height_px, width_px):
    assert box_mask(box, height_px, width_px).shape == (height_px, width_px)


@given(MASKS)
def test_a_mask_overlaps_itself_fully_and_its_complement_not_at_all(mask):
    assert mask_iou(mask, mask) == (1.0 if mask.any() else 0.0)
    assert mask_iou(mask, ~mask) == 0.0


def test_a_number_of_endless_length_in_counts_is_refused_at_once():
    started_s = time.monotonic()
    with pytest.raises(ValueError, match="too long"):
        rle_num_pixels("o" * 1_000_000)
    assert time.monotonic() - started_s < 1.0


@given(MASKS, st.integers(1, 8))
def test_a_mask_is_turned_as_its_picture_is(mask, orientation):
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    upright = picture if orientation == 1 else picture.transpose(UPRIGHT[orientation])
    assert np.array_equal(turn_mask(mask, orientation), np.asarray(upright) > 0)


@given(MASKS.filter(lambda mask: mask.any()), st.integers(1, 8))
def test_a_box_is_turned_as_its_mask_is(mask, orientation):
    def shares(mask):
        height, width = mask.shape
        return tuple(np.divide(mask_box(mask), (width, height, width, height)).tolist())

    turned = turn_mask(mask, orientation)
    assert turn_box(shares(mask), orientation) == pytest.approx(shares(turned))
