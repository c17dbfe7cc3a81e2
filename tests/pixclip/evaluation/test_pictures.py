import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.evaluation.pictures import (
    OUTLINE,
    cls_attention,
    colour_map,
    heat,
    outlined,
    patch_similarity,
)
from pixclip.masks import decode_mask
from tests.pixclip.evaluation.models import VISION, tiny_model
from tests.pixclip.evaluation.scenes import scene

GREY = Image.new("RGB", (80, 60), (200, 200, 200))


def box_of(x1, y1, x2, y2):
    mask = np.zeros((60, 80), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_a_region_stays_as_it_is_and_everything_else_is_darker():
    pixels = np.array(outlined(GREY, box_of(20, 10, 60, 50), 80))
    assert pixels.shape == (60, 80, 3)
    assert (pixels[30, 40] == 200).all()
    assert (pixels[2, 2] < 150).all()
    assert tuple(pixels[30, 19]) == OUTLINE


@pytest.mark.parametrize("mask", [box_of(40, 30, 41, 31), box_of(0, 0, 80, 60)])
def test_the_smallest_and_the_largest_mask_can_be_drawn(mask):
    small = outlined(GREY, mask, 20)
    assert small.size == (20, 15)
    assert (np.array(small) == 200).all(axis=-1).any()


def test_more_is_brighter():
    brightness = colour_map(np.linspace(0, 1, 50)).astype(int).sum(axis=-1)
    assert (np.diff(brightness) >= 0).all()


def test_heat_lies_where_the_values_are():
    values = np.zeros(16)
    values[3] = 1.0  # upper right corner of a grid of 4
    pixels = np.array(heat(GREY, values, 0, 1, 80)).astype(int).sum(axis=-1)
    assert pixels[5, 75] > pixels[55, 5] + 200


def test_attention_is_a_share_for_each_patch_and_the_mask_changes_it():
    model, sample = tiny_model(3), scene(4)
    mask = decode_mask(sample.regions[0].mask)
    without, within = (cls_attention(model, sample.image(), m) for m in (None, mask))
    assert without.shape == (VISION.grid**2,)
    assert 0 < without.sum() <= 1 + 1e-6
    assert not np.allclose(without, within, atol=1e-4)


def test_patches_are_compared_with_a_text_by_cosine():
    model, sample = tiny_model(3), scene(4)
    text_D = torch.nn.functional.normalize(torch.randn(VISION.embed_dim), dim=0)
    found = patch_similarity(model, sample.image(), text_D)
    assert found.shape == (VISION.grid**2,)
    assert (np.abs(found) <= 1 + 1e-6).all()
    np.testing.assert_allclose(patch_similarity(model, sample.image(), -text_D), -found, atol=1e-6)
