import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.config import PreprocessConfig
from pixclip.data.config import DataConfig
from pixclip.data.pictures import Masks, Views
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
    ("decoding", "size", "share", "needs_crops", "shrink"),
    [
        ("spare", (127, 300), 0.5, False, 1),
        ("spare", (128, 300), 0.5, False, 2),
        ("spare", (511, 600), 0.5, False, 4),
        ("spare", (600, 512), 0.5, False, 8),
        ("spare", (600, 512), 0.5, True, 4),
        ("spare", (600, 512), 0.1, True, 1),
        ("tight", (63, 300), 0.5, False, 1),
        ("tight", (300, 64), 0.5, False, 2),
        ("tight", (600, 256), 0.5, False, 8),
        ("tight", (600, 512), 0.5, True, 8),
        ("tight", (600, 512), 0.08, True, 1),
        ("whole", (600, 512), 0.5, False, 1),
    ],
)
def test_an_image_is_decoded_no_larger_than_image_and_crop_need(
    shrinks, decoding, size, share, needs_crops, shrink
):
    sample = make_sample(size, ellipse(*size, share))
    windows = Masks(MADE, sample, sample.regions).windows if needs_crops else []
    Views(MADE, sample, windows, DataConfig(decoding=decoding)).decode()
    assert shrinks == [shrink]


def test_only_a_jpeg_is_decoded_smaller(shrinks):
    sample = make_sample((600, 512), ellipse(600, 512, 0.5), "PNG")
    Views(MADE, sample, [], DataConfig()).decode()
    assert shrinks == [1]


@pytest.mark.parametrize("size", [(601, 515), (602, 518), (607, 512)])
@pytest.mark.parametrize(
    ("decoding", "k", "most"), [("whole", 1, 0), ("spare", 4, 1), ("tight", 8, 2)]
)
def test_a_smaller_image_gives_nearly_the_same_tensors_and_the_same_mask(
    size, decoding, k, most, shrinks
):
    mask = ellipse(*size, 0.6)
    sample = make_sample(size, mask)
    masks = Masks(MADE, sample, sample.regions)
    views = Views(MADE, sample, masks.windows, DataConfig(decoding=decoding))
    assert not shrinks
    decoded = views.decode()
    assert shrinks == [k]
    pixels = np.array(as_image(sample.jpeg))
    image, cover, crop, crop_cover = places()
    decoded.write_image(image)
    masks.write_cover(cover, 0, views.whole)
    assert torch.equal(cover, MADE.cover(mask))
    assert mean_difference(image, MADE.pixels(pixels)) <= most
    height, width = mask.shape
    x1, y1, x2, y2 = crop_window(mask_box(mask), height, width, 0.1)
    rows = slice(y1 // k * k, min(-(-y2 // k) * k, height))
    columns = slice(x1 // k * k, min(-(-x2 // k) * k, width))
    decoded.write_window(crop, 0)
    masks.write_cover(crop_cover, 0, views.windows[0])
    assert torch.equal(crop_cover, MADE.cover(mask[rows, columns]))
    assert mean_difference(crop, MADE.pixels(pixels[rows, columns])) <= most


@pytest.mark.parametrize(("decoding", "most"), [("whole", 0), ("spare", 1), ("tight", 4)])
def test_even_of_a_sharp_and_grainy_photograph_little_is_lost(decoding, most):
    random = np.random.default_rng(0)
    grain = random.normal(0, 6, (320, 400, 1))
    steps = random.integers(0, 256, (8, 10, 3)).repeat(40, axis=0).repeat(40, axis=1)
    target = io.BytesIO()
    Image.fromarray((steps + grain).clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=90)
    sample = replace(make_sample((400, 320), ellipse(400, 320, 0.9)), jpeg=target.getvalue())
    image, *_ = places()
    windows = Masks(MADE, sample, sample.regions).windows
    Views(MADE, sample, windows, DataConfig(decoding=decoding)).decode().write_image(image)
    expected = MADE.pixels(np.array(as_image(sample.jpeg)))
    assert mean_difference(image, expected) <= most


def places():
    """Where a batch would have an image, a mask, a crop and its mask."""
    pixels = torch.empty(3, 32, 32, dtype=torch.uint8)
    shares = torch.empty(1, 32, 32, dtype=torch.float16)
    return pixels, shares, pixels.clone(), shares.clone()


def mean_difference(first, second):
    return (first.float() - second.float()).abs().mean()


def test_images_of_the_wrong_size_are_refused_at_every_scale():
    sample = make_sample((600, 512), ellipse(600, 512, 0.5))
    for wrong in (replace(sample, width_px=608), replace(sample, height_px=500)):
        for shrink in (1, 2, 4, 8):
            with pytest.raises(ValueError, match="its sample says"):
                wrong.pixels(shrink)
