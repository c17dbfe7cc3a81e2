"""The fast way to pixels gives what Pillow gives, or the same error."""

import io

import numpy as np
import pytest
from PIL import Image

from pixclip import images
from pixclip.images import ImageError, open_image, read_pixels

FORMS = {
    "usual": {},
    "whole colours": {"subsampling": 0},
    "progressive": {"progressive": True, "subsampling": 1},
    "grey": {"mode": "L"},
    "four inks": {"mode": "CMYK"},
    "turned": {"orientation": 6},
    "upright": {"orientation": 1},
    "kept colours": {"keep_rgb": True},
    "restarts": {"restart_marker_rows": 1},
}


def jpeg(size=(301, 203), mode="RGB", orientation=0, **settings) -> bytes:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    target = io.BytesIO()
    picture = small.resize(size, Image.Resampling.BICUBIC).convert(mode)
    picture.save(target, "JPEG", exif=exif, **settings)
    return target.getvalue()


def outcome(read, data, shrink=1):
    """Pixels, or the reason why there are none."""
    try:
        return np.array(read(data, shrink=shrink)).tolist()
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(301, 203), (64, 48), (9, 300), (3, 5)])
def test_pixels_are_those_of_pillow_at_every_scale(form, shrink, size):
    data = jpeg(size, **FORMS[form])
    assert outcome(read_pixels, data, shrink) == outcome(open_image, data, shrink)


def test_damaged_files_become_what_pillow_makes_of_them():
    random = np.random.default_rng(1)
    sound = [jpeg((40, 30), **form) for form in FORMS.values()]
    for number in range(300):
        data = bytearray(sound[number % len(sound)])
        if number % 3 == 0:
            data = data[: random.integers(2, len(data))]
        else:
            for _ in range(random.integers(1, 6)):
                data[random.integers(2, len(data))] = random.integers(256)
        assert outcome(read_pixels, bytes(data)) == outcome(open_image, bytes(data))


def test_a_usual_picture_takes_the_fast_way(monkeypatch):
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(images, "_load", None)
    assert read_pixels(jpeg()).shape == (203, 301, 3)


def test_without_the_fast_decoder_pixels_are_the_same(monkeypatch):
    expected = read_pixels(jpeg())
    monkeypatch.setattr(images, "simplejpeg", None)
    assert np.array_equal(read_pixels(jpeg()), expected)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_formats_are_pillows(form):
    target = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).save(target, form)
    assert outcome(read_pixels, target.getvalue()) == outcome(open_image, target.getvalue())
