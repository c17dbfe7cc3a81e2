import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from components.core.image_check import check_image, is_upright_jpeg, perceptual_hash
from components.core.shards import read_image_bytes
from components.data.ingest.settings import IngestSettings
from pixclip.images import DEFAULT_MAX_PIXELS, read_image

ORIENTATION = 0x0112
# How the stored pixels must be turned so that a viewer sees them upright (EXIF 2.3, 4.6.4 A).
UPRIGHT = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


def decoded(data: bytes) -> np.ndarray:
    """The pixels as stored, EXIF ignored."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_once(site, ingest_urls, photo, encoded, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(photo(3), exif=exif, quality=98, subsampling=0)
    url = site.serve("/a.jpg", data)
    result = ingest_urls([url])
    row, expected = result.rows[url], UPRIGHT[orientation](decoded(data))
    stored = read_image_bytes(result.images, row["shard"], row["sha256"])
    assert (row["height_px"], row["width_px"]) == expected.shape[:2]
    assert (row["stored_width"], row["stored_height"]) == (64, 48)
    assert row["orientation"] == orientation
    assert np.abs(decoded(stored) - expected).mean() < 3
    assert Image.open(io.BytesIO(stored)).getexif().get(ORIENTATION, 1) == 1
    assert (stored == data) is (orientation == 1)


@pytest.mark.parametrize(
    ("mode", "form", "keeps_bytes"),
    [
        ("RGB", "JPEG", True),
        ("L", "JPEG", True),
        ("CMYK", "JPEG", False),
        ("RGB", "PNG", False),
        ("RGBA", "PNG", False),
        ("LA", "PNG", False),
        ("P", "PNG", False),
        ("RGBA", "WEBP", False),
        ("P", "GIF", False),
        ("RGB", "BMP", False),
        ("RGBA", "TIFF", False),
    ],
)
def test_what_is_no_plain_jpeg_becomes_one(photo, encoded, mode, form, keeps_bytes):
    source = photo(3).convert(mode)
    data, pixels = encoded(source, form), np.asarray(source.convert("RGB")).astype(int)
    checked, jpeg = check_image(data, max_pixels=10_000, min_side_px=16)
    assert (checked.reason, checked.width_px, checked.height_px) == ("", 64, 48)
    assert (jpeg == b"") is keeps_bytes
    if jpeg:
        assert is_upright_jpeg(jpeg, read_image(jpeg))
        assert np.abs(decoded(jpeg) - pixels).mean() < 12


def test_damaged_metadata_is_not_passed_on(photo, encoded):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010E] = "a description"
    damaged = encoded(photo(3), exif=exif).replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02")
    checked, jpeg = check_image(damaged, max_pixels=10_000, min_side_px=16)
    assert checked.reason == ""
    assert is_upright_jpeg(jpeg, read_image(jpeg))


@pytest.mark.parametrize(
    ("change", "limits", "reason"),
    [
        (lambda data: data[: len(data) * 2 // 3], {}, "truncated_image"),
        (lambda data: b"\xff\xd8\xff" + b"no image" * 10, {}, "not_an_image"),
        (lambda data: data, {"max_pixels": 64 * 48 - 1}, "too_many_pixels"),
        (lambda data: data, {"min_side_px": 49}, "too_small"),
        (lambda data: data, {"min_side_px": 48}, ""),
    ],
)
def test_a_bad_image_gets_its_reason(jpeg, change, limits, reason):
    checked, made = check_image(
        change(jpeg(1)), **{"max_pixels": 10_000, "min_side_px": 8} | limits
    )
    assert checked.reason == reason
    assert (made, checked.phash is None) == (b"", bool(reason))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1200), st.binary(min_size=1, max_size=30))
def test_damaged_bytes_are_named_and_crash_nothing(jpeg, position, junk):
    data = jpeg(1)
    damaged = data[:position] + junk + data[position + len(junk) :]
    checked, _ = check_image(damaged, max_pixels=100_000, min_side_px=8)
    assert checked.reason in {"", "not_an_image", "truncated_image", "too_many_pixels", "too_small"}


def test_the_hash_survives_another_size_and_quality_but_not_another_picture(photo, encoded):
    image = photo(3, 640, 480)
    smaller = Image.open(io.BytesIO(encoded(image.resize((300, 225)), quality=50))).convert("RGB")
    near, far = (
        (int(perceptual_hash(image), 16) ^ int(perceptual_hash(other), 16)).bit_count()
        for other in (smaller, photo(4, 640, 480))
    )
    assert near <= 4
    assert far >= 16


def test_no_image_is_let_in_that_later_steps_would_refuse():
    IngestSettings(max_pixels=DEFAULT_MAX_PIXELS)
    with pytest.raises(ValidationError, match="max_pixels"):
        IngestSettings(max_pixels=DEFAULT_MAX_PIXELS + 1)
