import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pixclip.config import PreprocessConfig
from pixclip.masks import encode_mask, mask_box, read_runs
from pixclip.preprocess import MaskAreas, Preprocess, area_share, crop_window

SIDES = st.integers(1, 40)
MASKS = hnp.arrays(bool, st.tuples(SIDES, SIDES)).filter(lambda mask: mask.any())
SIZE = 16


def preprocess(size_px: int = SIZE, **settings: float) -> Preprocess:
    return Preprocess(size_px, PreprocessConfig(**settings))


def photograph(width_px: int, height_px: int, seed: int = 0) -> Image.Image:
    """A picture with soft and sharp parts."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    pixels = np.array(soft.resize((width_px, height_px), Image.Resampling.BICUBIC))
    pixels[: height_px // 2, : width_px // 3] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


def share_by_loop(mask: np.ndarray, size: int) -> np.ndarray:
    """The share of every output pixel inside a mask, pixel by pixel."""
    height, width = mask.shape
    shares = np.zeros((size, size))
    for row, column, y, x in np.ndindex(size, size, height, width):
        top, bottom = row * height / size, (row + 1) * height / size
        left, right = column * width / size, (column + 1) * width / size
        overlap_y = max(0.0, min(bottom, y + 1) - max(top, y))
        overlap_x = max(0.0, min(right, x + 1) - max(left, x))
        shares[row, column] += mask[y, x] * overlap_y * overlap_x
    return shares / (height / size * (width / size))


def share_by_sums(mask: np.ndarray, size: int) -> np.ndarray:
    """As `share_by_loop`, by two products with what overlaps along each side."""
    rows, columns = (overlaps(side, size) for side in mask.shape)
    return rows @ mask @ columns.T / (mask.size / size**2)


def overlaps(side: int, size: int) -> np.ndarray:
    """How much of every of `side` pixels each of `size` output pixels covers, [size, side]."""
    edges, pixels = np.arange(size + 1) * side / size, np.arange(side)
    last, first = edges[1:, None], edges[:-1, None]
    return np.clip(np.minimum(last, pixels + 1) - np.maximum(first, pixels), 0, None)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 13), st.integers(1, 13))), st.integers(1, 9))
def test_the_share_of_a_pixel_inside_a_mask_is_its_area(mask, size):
    assert area_share(mask, size, size) == pytest.approx(share_by_loop(mask, size), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    MASKS | SIDES.map(lambda side: np.ones((side, 7), dtype=bool)), st.integers(1, 20), st.data()
)
def test_areas_of_runs_are_those_of_the_mask_in_every_window_around_it(mask, size, data):
    height_px, width_px = mask.shape
    x1, y1, x2, y2 = map(int, mask_box(mask))
    left, top = data.draw(st.integers(0, x1)), data.draw(st.integers(0, y1))
    right, bottom = data.draw(st.integers(x2, width_px)), data.draw(st.integers(y2, height_px))
    areas = MaskAreas.of_runs(read_runs(encode_mask(mask)))
    places, found = areas.shares((left, top, right, bottom), size, size)
    shares = np.zeros((size, size))
    shares[places] = found
    window = mask[top:bottom, left:right]
    assert shares == pytest.approx(share_by_sums(window, size), abs=1e-6)


@given(MASKS, st.integers(1, 30))
def test_no_part_of_a_mask_is_lost_or_counted_twice(mask, size):
    share = area_share(mask, size, size)
    assert share.mean() == pytest.approx(mask.mean(), rel=1e-5)
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-6


@given(SIDES, SIDES, st.integers(1, 30))
def test_a_mask_of_everything_is_the_full_mask_bit_for_bit(height_px, width_px, size):
    everything = np.ones((height_px, width_px), dtype=bool)
    made = preprocess(size)
    assert torch.equal(made.mask(everything), made.full_mask())


def test_the_order_of_a_mask_in_memory_does_not_matter():
    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    made = preprocess()
    assert torch.equal(made.mask(mask), made.mask(np.asfortranarray(mask)))


def test_a_mask_of_one_pixel_in_a_large_image_does_not_vanish():
    mask = np.zeros((3000, 4000), dtype=bool)
    mask[1234, 2345] = True
    made = preprocess()
    outside = made.mask(mask).min()
    assert (made.mask(mask) > outside).sum() == 1
    assert made.coverage(mask, 4).count_nonzero() == 1


def test_masks_are_normalised_as_the_config_says():
    made = preprocess(mask_mean=0.5, mask_std=0.26)
    half = np.zeros((10, 10), dtype=bool)
    half[:, :5] = True
    assert made.mask(half).unique().tolist() == pytest.approx([-0.5 / 0.26, 0.5 / 0.26])
    assert made.full_mask().unique().tolist() == pytest.approx([0.5 / 0.26])


@given(MASKS)
def test_the_coverage_of_a_patch_is_the_share_of_its_pixels(mask):
    made = preprocess()
    cover = area_share(mask, SIZE, SIZE).reshape(4, 4, 4, 4).mean(axis=(1, 3)).ravel()
    assert made.coverage(mask, 4).numpy() == pytest.approx(cover, abs=1e-3)


def test_images_are_squashed_as_pillow_squashes_them():
    image = photograph(61, 83)
    expected = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(int)
    made = preprocess().pixels(np.array(image)).permute(1, 2, 0).numpy()
    assert np.abs(made - expected).max() <= 1


def test_images_are_normalised_as_the_config_says():
    config = PreprocessConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2))
    image = Image.new("RGB", (9, 5), (51, 102, 255))
    made = Preprocess(4, config).image(image)
    assert made.shape == (3, 4, 4)
    assert made[:, 0, 0].tolist() == pytest.approx([0.2, 0.5, 3.5], abs=1e-6)
    assert bool((made == made[:, :1, :1]).all())


@given(MASKS, st.floats(0, 1))
def test_a_crop_holds_the_whole_mask_and_respects_the_margin(mask, margin):
    height_px, width_px = mask.shape
    image = photograph(width_px, height_px)
    cut, cut_mask = preprocess(crop_margin=margin).crop(image, mask)
    assert cut.size == (cut_mask.shape[1], cut_mask.shape[0])
    assert cut_mask.sum() == mask.sum()
    x1, y1, x2, y2 = map(int, mask_box(mask))
    assert cut.width <= (x2 - x1) * (1 + 2 * margin) + 2
    assert cut.height <= (y2 - y1) * (1 + 2 * margin) + 2


@given(MASKS)
def test_a_crop_without_margin_is_tight_and_fits_its_mask(mask):
    image = photograph(mask.shape[1], mask.shape[0])
    cut, cut_mask = preprocess().crop(image, mask)
    assert mask_box(cut_mask) == (0, 0, *cut.size)
    x1, y1, x2, y2 = map(int, mask_box(mask))
    assert np.array_equal(np.asarray(cut), np.asarray(image)[y1:y2, x1:x2])


def test_a_margin_is_a_share_of_the_sides_and_ends_at_the_image():
    assert crop_window((10, 20, 30, 30), 100, 100, 0.5) == (0, 15, 40, 35)
    assert crop_window((0, 90, 30, 100), 100, 32, 0.5) == (0, 85, 32, 100)
