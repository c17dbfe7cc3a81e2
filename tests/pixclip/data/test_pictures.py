import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.config import PreprocessConfig
from pixclip.data.pictures import Picture
from pixclip.data.samples import Region, Sample
from pixclip.inputs import as_image
from pixclip.masks import encode_mask, mask_box
from pixclip.preprocess import Preprocess, crop_window

MADE = Preprocess(32, PreprocessConfig(crop_margin=0.1))


def ellipse(width_px: int, height_px: int, share: float) -> np.ndarray:
    """A mask in the middle whose box has this share of each side."""
    y, x = np.mgrid[:height_px, :width_px]
    distance = ((x + 0.5) / width_px - 0.5) ** 2 + ((y + 0.5) / height_px - 0.5) ** 2
    return distance < (share / 2) ** 2


def make_sample(size: tuple[int, int], mask: np.ndarray, form: str = "JPEG") -> Sample:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, form, quality=92)
    texts = dict.fromkeys(
        ("phrase", "object_caption", "context_caption", "long_caption", "short_caption"), "a thing"
    )
    region = Region(region_id="1-00", mask=encode_mask(mask), box_xyxy=mask_box(mask), **texts)
    return Sample(
        "train/00000.tar", "a", "a", "a thing", *size, "", (region,), jpeg=buffer.getvalue()
    )


@pytest.fixture
def shrinks(monkeypatch):
    """The scales at which images are decoded."""
    found: list[int] = []
    decode = Sample.pixels
    monkeypatch.setattr(
        Sample, "pixels", lambda self, shrink: found.append(shrink) or decode(self, shrink)
    )
    return found


@pytest.mark.parametrize(
    ("size", "share", "has_crops", "shrink"),
    [
        ((127, 300), 0.5, False, 1),
        ((128, 300), 0.5, False, 2),
        ((511, 600), 0.5, False, 4),
        ((600, 512), 0.5, False, 8),
        ((600, 512), 0.5, True, 4),
        ((600, 512), 0.1, True, 1),
    ],
)
def test_an_image_is_decoded_no_larger_than_image_and_crop_need(
    shrinks, size, share, has_crops, shrink
):
    sample = make_sample(size, ellipse(*size, share))
    Picture(MADE, sample, sample.regions, has_crops)
    assert shrinks == [shrink]


def test_only_a_jpeg_is_decoded_smaller(shrinks):
    sample = make_sample((600, 512), ellipse(600, 512, 0.5), "PNG")
    Picture(MADE, sample, sample.regions, has_crops=False)
    assert shrinks == [1]


@pytest.mark.parametrize("size", [(601, 515), (602, 518), (607, 512)])
def test_a_smaller_image_gives_nearly_the_same_tensors_and_the_same_mask(size, shrinks):
    mask = ellipse(*size, 0.6)
    sample = make_sample(size, mask)
    picture = Picture(MADE, sample, sample.regions, has_crops=True)
    assert shrinks == [4]
    pixels = np.array(as_image(sample.jpeg))
    image, cover, crop, crop_cover = places()
    picture.write_image(image)
    picture.write_cover(cover, 0)
    assert torch.equal(cover, MADE.cover(mask))
    assert_near(image, MADE.pixels(pixels))
    height, width = mask.shape
    x1, y1, x2, y2 = crop_window(mask_box(mask), height, width, 0.1)
    rows = slice(y1 // 4 * 4, min(-(-y2 // 4) * 4, height))
    columns = slice(x1 // 4 * 4, min(-(-x2 // 4) * 4, width))
    picture.write_crop(crop, crop_cover, 0)
    assert torch.equal(crop_cover, MADE.cover(mask[rows, columns]))
    assert_near(crop, MADE.pixels(pixels[rows, columns]))


def places():
    """Where a batch would have an image, a mask, a crop and its mask."""
    pixels = torch.empty(3, 32, 32, dtype=torch.uint8)
    shares = torch.empty(1, 32, 32, dtype=torch.float16)
    return pixels, shares, pixels.clone(), shares.clone()


def assert_near(first, second):
    assert (first.float() - second.float()).abs().mean() < 1


def test_images_of_the_wrong_size_are_refused_at_every_scale():
    sample = make_sample((600, 512), ellipse(600, 512, 0.5))
    for wrong in (replace(sample, width_px=608), replace(sample, height_px=500)):
        for shrink in (1, 2, 4, 8):
            with pytest.raises(ValueError, match="its sample says"):
                wrong.pixels(shrink)
