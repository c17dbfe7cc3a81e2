"""Images and masks are prepared as public projects do it, told by Pillow's resampling alone.

torchvision's `Resize` of a tensor, which antialiases, is Pillow's filter on numbers (mode F); of a
picture it is Pillow's filter on bytes.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.config import CLIP_MEAN, CLIP_STD, PREPROCESS, PreprocessConfig
from pixclip.preprocess import Preprocess
from tests.pixclip.test_preprocess import photograph, share_by_sums
from tests.pixclip.tiny_models import tiny_model

SIZE = 32
SIDES = [(90, 61), (61, 90), (32, 32), (20, 47), (33, 32)]  # width, height


def normalised(pixels_hw3: np.ndarray) -> np.ndarray:
    return ((pixels_hw3 - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


def floats_resized(values_hw: np.ndarray, width: int, height: int, filter_: int) -> np.ndarray:
    picture = Image.fromarray(values_hw.astype(np.float32))
    assert picture.mode == "F"
    return np.asarray(picture.resize((width, height), filter_))


def centre_square(array: np.ndarray) -> np.ndarray:
    """AlphaCLIP's `crop_center`."""
    height, width = array.shape[:2]
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return array[top : top + side, left : left + side]


def public_image(name: str, image: Image.Image) -> np.ndarray:
    """What the project's transform gives, [3, S, S]."""
    if name == "clip":  # Resize(S) and CenterCrop(S) of a picture
        short = min(image.size)
        width, height = (int(SIZE * side / short) for side in image.size)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
        return normalised(np.asarray(resized.crop((left, top, left + SIZE, top + SIZE))) / 255)
    pixels = np.asarray(image) / 255
    if name == "alphaclip":
        pixels = centre_square(pixels)
    bands = [
        floats_resized(pixels[..., band], SIZE, SIZE, Image.Resampling.BICUBIC) for band in range(3)
    ]
    return normalised(np.stack(bands, axis=-1))


@pytest.mark.parametrize(("width", "height"), SIDES)
@pytest.mark.parametrize("name", PREPROCESS)
def test_an_image_becomes_what_the_public_transform_makes_of_it(name, width, height):
    image = photograph(width, height)
    ours = Preprocess(SIZE, PREPROCESS[name]).image(image)
    np.testing.assert_allclose(ours, public_image(name, image), atol=1e-4)


@pytest.mark.parametrize(("width", "height"), SIDES)
@pytest.mark.parametrize("name", ["alphaclip", "pixclip"])
def test_a_mask_becomes_what_the_public_transform_makes_of_it(name, width, height):
    random = np.random.default_rng(3)
    mask = random.random((height, width)) < 0.3
    mask[height // 3 : height // 2, width // 3 : width // 2] = True
    cut = centre_square(mask) if name == "alphaclip" else mask
    theirs = (floats_resized(cut, SIZE, SIZE, Image.Resampling.BILINEAR) - 0.5) / 0.26
    ours = Preprocess(SIZE, PREPROCESS[name]).mask(mask)
    np.testing.assert_allclose(ours[0], theirs, atol=1e-4)


def test_the_settings_make_a_difference_on_these_pictures():
    image = photograph(90, 61)
    default = Preprocess(SIZE, PreprocessConfig()).image(image)
    for name, config in PREPROCESS.items():
        assert (Preprocess(SIZE, config).image(image) - default).abs().max() > 1e-2, name
        squashed = Preprocess(SIZE, config).image(image, squash=True)
        assert (squashed - default).abs().max() < 0.2, name


@pytest.mark.parametrize("mode", ["shortest_side", "center_square"])
@pytest.mark.parametrize(("width", "height"), SIDES)
def test_an_image_and_its_mask_are_cut_alike(mode, width, height):
    """A picture that is white inside a mask and black outside: both become the same."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 : height // 2, width // 3 :] = True
    image = Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    config = PreprocessConfig(
        resize=mode,
        interpolation="bilinear",
        resampler="float",
        mask_resize="bilinear",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        mask_mean=0.0,
        mask_std=1.0,
    )
    preprocess = Preprocess(SIZE, config)
    np.testing.assert_allclose(preprocess.image(image)[:1], preprocess.mask(mask), atol=1e-5)


def test_a_soft_mask_becomes_the_mean_of_its_values():
    random = np.random.default_rng(0)
    soft = random.random((45, 61)).astype(np.float32)
    soft[:, :7] = 0
    cover = Preprocess(SIZE, PreprocessConfig()).cover(soft)[0]
    np.testing.assert_allclose(cover, share_by_sums(soft, SIZE), atol=1e-3)
    hard = soft > 0.5
    same = Preprocess(SIZE, PreprocessConfig()).cover(hard.astype(np.float32))
    assert torch.equal(same, Preprocess(SIZE, PreprocessConfig()).cover(hard))


def test_a_model_reads_soft_masks_and_half_a_mask_is_neither_all_nor_nothing():
    model, image = tiny_model(), photograph(64, 48)
    hard = np.zeros((48, 64))
    hard[10:40, 5:50] = 1
    whole, soft, bytes_ = model.encode_image(
        image, [hard, 0.5 * hard, np.round(hard * 127.5).astype(np.uint8)]
    )
    assert not torch.allclose(whole, soft, atol=1e-3)
    torch.testing.assert_close(soft, bytes_, atol=2e-2, rtol=0)


def test_a_region_that_the_model_does_not_see_is_refused():
    model = tiny_model()
    config = model.config.changed(preprocess=PREPROCESS["alphaclip"])
    model.preprocess = Preprocess(32, config.preprocess)
    with pytest.raises(ValueError, match="image 0, mask 1: the region lies outside of the middle"):
        model.encode_image(photograph(90, 30), [(40, 0, 50, 30), (0, 0, 10, 30)])


def test_other_settings_than_the_loader_knows_are_refused_for_training():
    Preprocess(SIZE, PreprocessConfig()).require_trainable()
    Preprocess(SIZE, PreprocessConfig(crop_margin=0.5)).require_trainable()
    with pytest.raises(ValueError, match=r"trained with preprocess\.resampler=torch, preprocess"):
        Preprocess(SIZE, PREPROCESS["pixclip"]).require_trainable()
