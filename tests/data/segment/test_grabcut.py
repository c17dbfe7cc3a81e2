from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from components.data.segment.grabcut import GrabCutSegmenter
from components.data.segment.segmenter import Prompt
from components.data.segment.settings import GrabCutSettings
from pixclip.masks import mask_box, mask_iou


@pytest.fixture
def segmenter():
    return GrabCutSegmenter(GrabCutSettings())


def synthetic(side_px=400):
    """A disc on a striped ground, and its mask."""
    y, x = np.mgrid[:side_px, :side_px]
    disc = (x - side_px * 0.45) ** 2 + (y - side_px * 0.55) ** 2 < (side_px * 0.25) ** 2
    rng = np.random.default_rng(0)
    ground = np.where(x % 40 < 20, 60, 90)[..., None] + rng.integers(0, 20, (side_px, side_px, 3))
    ground[disc] = np.array([220, 140, 40]) + rng.integers(0, 20, (int(disc.sum()), 3))
    return Image.fromarray(ground.astype(np.uint8)), disc


@pytest.mark.parametrize("side_px", [60, 400, 1200])
def test_a_disc_is_cut_out(segmenter, side_px):
    image, disc = synthetic(side_px)
    (result,) = segmenter.segment([Prompt(image, (mask_box(disc),))])[0]
    assert result.mask.shape == disc.shape
    assert mask_iou(result.mask, disc) > 0.95


def test_every_box_gets_the_mask_of_its_own_object(segmenter):
    image, disc = synthetic()
    twice = Image.new("RGB", (800, 400))
    twice.paste(image, (0, 0))
    twice.paste(image, (400, 0))
    masks = [np.pad(disc, ((0, 0), pad)) for pad in ((0, 400), (400, 0))]
    results = segmenter.segment([Prompt(twice, tuple(mask_box(mask) for mask in masks))])[0]
    for result, mask in zip(results, masks, strict=True):
        assert mask_iou(result.mask, mask) > 0.95


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0.0, 400.0, 400.0),
        (0.0, 0.0, 1.0, 1.0),
        (399.2, 399.2, 399.9, 400.0),
        (0.0, 100.0, 400.0, 101.5),
        (399.0, 0.0, 400.0, 400.0),
    ],
    ids=["whole image", "one pixel", "less than a pixel", "a line", "the edge"],
)
def test_boxes_at_the_limits_give_a_mask_and_no_crash(segmenter, box):
    image, disc = synthetic()
    (result,) = segmenter.segment([Prompt(image, (box,))])[0]
    assert result.mask.shape == disc.shape


def test_an_image_of_one_colour_does_not_crash(segmenter):
    image = Image.new("RGB", (100, 100), "grey")
    (result,) = segmenter.segment([Prompt(image, ((20.0, 20.0, 60.0, 60.0),))])[0]
    assert result.mask.shape == (100, 100)


def test_the_mask_does_not_depend_on_what_was_cut_before_or_beside_it(segmenter):
    prompts = [
        Prompt(synthetic(side)[0], ((30.0, 30.0, side * 0.8, side * 0.9),))
        for side in (120, 150, 180, 210)
    ]
    alone = [segmenter.segment([prompt])[0][0].mask for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(segmenter.segment, [p]) for p in reversed(prompts * 3)]
    beside = [job.result()[0][0].mask for job in reversed(jobs)][: len(prompts)]
    for first, second in zip(alone, beside, strict=True):
        assert np.array_equal(first, second)
