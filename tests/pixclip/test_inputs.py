import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pixclip.inputs import as_image, as_mask
from pixclip.masks import encode_mask

SIDES = st.integers(1, 40)
MASKS = hnp.arrays(bool, st.tuples(SIDES, SIDES)).filter(lambda mask: mask.any())
HEIGHT_PX, WIDTH_PX = 30, 50


@given(MASKS)
def test_every_form_of_a_mask_gives_the_same_mask(mask):
    rle = encode_mask(mask)
    coco = rle.as_coco()
    forms = [
        mask,
        mask.astype(np.uint8),
        mask.astype(np.uint8) * 255,
        mask.astype(np.float32),
        Image.fromarray(mask.astype(np.uint8) * 255),
        rle,
        coco,
        coco | {"counts": rle.counts.encode()},
        coco | {"counts": runs_of(mask)},
    ]
    for form in forms:
        assert np.array_equal(as_mask(form, *mask.shape), mask)


def runs_of(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length encoding."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    return np.diff([0, *np.flatnonzero(np.diff(pixels)), mask.size]).tolist()


@given(st.data())
def test_a_box_its_polygon_and_its_array_are_the_same_region(data):
    x1, y1 = data.draw(st.integers(0, WIDTH_PX - 2)), data.draw(st.integers(0, HEIGHT_PX - 2))
    x2, y2 = (data.draw(st.integers(x1 + 1, WIDTH_PX)), data.draw(st.integers(y1 + 1, HEIGHT_PX)))
    array = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=bool)
    array[y1:y2, x1:x2] = True
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    for form in ((x1, y1, x2, y2), np.array([x1, y1, x2, y2]), polygon, [polygon]):
        assert np.array_equal(as_mask(form, HEIGHT_PX, WIDTH_PX), array)


def test_several_polygons_are_one_region():
    left, right = [0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]
    assert as_mask([left, right], HEIGHT_PX, WIDTH_PX).sum() == 32


def test_a_box_is_clipped_to_the_image():
    assert as_mask((-5, -5, 2, 3), HEIGHT_PX, WIDTH_PX).sum() == 6


OTHER_SIZE = np.ones((WIDTH_PX, HEIGHT_PX), dtype=bool)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (OTHER_SIZE, "mask is 50 x 30 .* image is 30 x 50"),
        (encode_mask(OTHER_SIZE), "made for the image it goes with"),
        (encode_mask(OTHER_SIZE).as_coco(), "made for the image it goes with"),
        (np.ones((1, HEIGHT_PX, WIDTH_PX)), "mask is 1 x 30 x 50"),
        ({"size": [HEIGHT_PX, WIDTH_PX], "counts": [5, 6]}, "do not add up"),
        ({"size": [HEIGHT_PX, WIDTH_PX], "counts": "no counts"}, "COCO mask counts"),
        ({"size": [HEIGHT_PX, WIDTH_PX], "counts": ["1"]}, "do not add up"),
        ({"size": [HEIGHT_PX, WIDTH_PX], "counts": None}, "do not add up"),
        ({"size": [HEIGHT_PX, WIDTH_PX], "counts": b"\xff"}, "COCO mask counts"),
        ({"size": ["30", None], "counts": [1]}, "made for the image it goes with"),
        ({"counts": "12"}, "needs `size`"),
        (np.zeros((HEIGHT_PX, WIDTH_PX), dtype=bool), "covers no pixel"),
        (np.full((HEIGHT_PX, WIDTH_PX), 1.3), "numbers from 0 to 1; got float64 from 1.3 to 1.3"),
        (np.full((HEIGHT_PX, WIDTH_PX), -0.3), "got float64 from -0.3"),
        (np.full((HEIGHT_PX, WIDTH_PX), float("nan")), "got float64 from nan"),
        (np.full((HEIGHT_PX, WIDTH_PX), 7, dtype=np.uint8), "threshold or a label"),
        (np.full((HEIGHT_PX, WIDTH_PX), 200), "got int64 from 200 to 200"),
        (np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.float32), "covers no pixel"),
        ((60, 0, 70, 10), "covers no pixel"),
        ((10, 10, 10, 20), "x1 < x2"),
        ((0.1, 0.2, 0.5, 0.6), "shares of the image"),
        ((0, 0, float("nan"), 5), "finite"),
        ([], "pairs of finite numbers"),
        ([1, 2, 3], "pairs of finite numbers"),
        ([[1, 2, 3, 4]], "three points"),
        (["a", "b", "c", "d"], "numbers"),
        ([0, 0, 1e8, 0, 1e8, 1e8], "outline is longer"),
        ([0, 0, 1e300, -1e300, 5, 5], "outline is longer"),
        ([[0, 0, 9, 0, 9, 9] * 200_000], "outline is longer"),
        ("mask.png", "opened first"),
        (Path("mask.png"), "opened first"),
        (7, "a box or polygons, got 7"),
        (np.array(7), "a box or polygons, got array"),
        (np.zeros((2, 4)), r"2 boxes .* list\(boxes\)"),
        ([[0, 1] * 25] * HEIGHT_PX, "numpy.array"),
        ([1.5] * 999, r"^.{0,120}$"),
    ],
)
def test_what_is_no_region_of_the_image_is_refused(region, message):
    with pytest.raises(ValueError, match=message):
        as_mask(region, HEIGHT_PX, WIDTH_PX)


def test_soft_masks_of_bytes_and_of_numbers_are_the_same_region():
    rows, columns = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    soft = ((rows + columns) * 3).astype(np.uint8)
    numbers = soft.astype(np.float64) / 255
    for form in (soft, numbers, numbers.astype(np.float32), Image.fromarray(soft)):
        found = as_mask(form, HEIGHT_PX, WIDTH_PX)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, numbers, atol=1e-6)


@pytest.mark.parametrize("inside", [1, 1.0, 255, True])
def test_a_mask_of_two_values_is_hard(inside):
    array = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.array(inside).dtype)
    array[3:9, 4:12] = inside
    found = as_mask(array, HEIGHT_PX, WIDTH_PX)
    assert found.dtype == bool
    assert np.array_equal(found, array != 0)


def test_a_path_bytes_and_an_array_are_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    for form in (pixels, buffer.getvalue(), tmp_path / "a.png", str(tmp_path / "a.png")):
        image = as_image(form)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


def test_a_transparent_picture_is_laid_on_white():
    assert as_image(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros(0)],
    ids=["grey", "channels first", "floats", "empty"],
)
def test_an_array_that_is_no_rgb_image_is_refused(array):
    with pytest.raises(ValueError, match="uint8 RGB"):
        as_image(array)
