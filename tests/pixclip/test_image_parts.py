"""Files that ask a decoder for minutes or gigabytes, and good files of every kind beside them."""

import io
import resource
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps, ImageSequence

from pixclip.image_limits import MAX_PARTS, MAX_SCANS
from pixclip.images import ImageError, opaque, open_image
from pixclip.jpeg_parts import is_plain_jpeg
from tests.pixclip.image_files import (
    encoded,
    frames,
    gif_with,
    jpeg_with,
    many_scans,
    packed,
    picture,
    png_chunk,
    png_with,
    run_length_bmp,
    segment,
    strips,
    tiff,
    tiff_tags,
    tiles,
    webp,
    webp_canvas,
)

MAX_SECONDS = 10.0  # of processor time, on a machine that others use too; these files took far more


GOOD_FILES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(picture(), "JPEG"),
    "jpeg progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "jpeg 4:4:4 restarts": lambda: encoded(
        picture(), "JPEG", subsampling=0, restart_marker_blocks=1
    ),
    "jpeg cmyk": lambda: encoded(picture("CMYK"), "JPEG"),
    "jpeg rgb": lambda: encoded(picture(), "JPEG", keep_rgb=True),
    "jpeg grey profile": lambda: encoded(picture("L"), "JPEG", icc_profile=b"\xff\xda" * 100_000),
    "jpeg comment": lambda: encoded(picture(), "JPEG", comment=b"\xff\xda" * 9000),
    "jpeg and a film": lambda: encoded(picture(), "JPEG") + b"\xff\xda" * 500,
    "mpo": lambda: encoded(picture(), "MPO", **frames()),
    "png": lambda: encoded(picture(), "PNG"),
    "png palette": lambda: encoded(picture("P"), "PNG", transparency=3),
    "png grey": lambda: encoded(picture("LA"), "PNG"),
    "png alpha": lambda: encoded(picture("RGBA"), "PNG"),
    "png bit": lambda: encoded(picture("1"), "PNG"),
    "png profile": lambda: encoded(picture(), "PNG", icc_profile=bytes(9000)),
    "png animated": lambda: encoded(picture(), "PNG", **frames()),
    "png still and animated": lambda: encoded(picture(), "PNG", default_image=True, **frames()),
    "gif": lambda: encoded(picture("P"), "GIF", comment=b"hello"),
    "gif transparent": lambda: encoded(picture("P"), "GIF", transparency=5),
    "gif animated": lambda: encoded(picture("P"), "GIF", duration=50, loop=0, **frames("P")),
    "bmp": lambda: encoded(picture(), "BMP"),
    "bmp palette": lambda: encoded(picture("P"), "BMP"),
    "webp": lambda: encoded(picture(), "WEBP"),
    "webp lossless": lambda: encoded(picture(), "WEBP", lossless=True),
    "webp alpha": lambda: encoded(picture("RGBA"), "WEBP"),
    "webp profile": lambda: encoded(picture(), "WEBP", icc_profile=bytes(999), xmp=b"<x/>"),
    "webp animated": lambda: encoded(picture(), "WEBP", **frames()),
    "webp animated alpha": lambda: encoded(picture("RGBA"), "WEBP", **frames("RGBA")),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "tiff one row a strip": lambda: encoded(
        picture(), "TIFF", compression="tiff_lzw", tiffinfo={278: 1}
    ),
    "tiff alpha": lambda: encoded(picture("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "tiff palette": lambda: encoded(picture("P"), "TIFF", compression="packbits"),
    "tiff cmyk": lambda: encoded(picture("CMYK"), "TIFF"),
    "tiff fax": lambda: encoded(picture("1"), "TIFF", compression="group4"),
    "tiff jpeg": lambda: encoded(picture(), "TIFF", compression="jpeg"),
    "tiff ycbcr": lambda: encoded(picture("YCbCr"), "TIFF", compression="jpeg"),
    "tiff zstd": lambda: encoded(picture(), "TIFF", compression="zstd"),
    "tiff pages": lambda: encoded(picture(), "TIFF", **frames()),
    "tiff big endian": lambda: encoded(picture("L"), "TIFF", big_tiff=False, icc_profile=bytes(99)),
    "tiff tiles": lambda: tiles(),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_a_good_file_gives_the_pixels_that_pillow_gives(name):
    data = GOOD_FILES[name]()
    with Image.open(io.BytesIO(data)) as image:
        expected = opaque(ImageOps.exif_transpose(next(iter(ImageSequence.Iterator(image)))))
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(expected))


EMPTY_EXIF = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0")
TINY_SEGMENTS = 300_000
LAST_BYTES = encoded(picture(), "JPEG")[-2:]

BOMBS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    # JPEG: scans
    "thousands of empty scans": (lambda: many_scans(5000, 60_000, 800), {"too_costly"}),
    "scans over a small picture": (lambda: many_scans(100_000, 640, 480), {"too_costly"}),
    "segments between scans": (
        lambda: many_scans(2000, 7000, 7000, segment(0xFE, b"text")),
        {"too_costly"},
    ),
    "fill between scans": (lambda: many_scans(900, 640, 480, b"\xff" * 20_000), {"too_costly"}),
    "as many scans as are allowed": (lambda: many_scans(MAX_SCANS, 7000, 7000), {""}),
    "refining scans": (lambda: many_scans(MAX_SCANS, 7000, 7000, refine=True), {""}),
    "scans of arithmetic coding": (
        lambda: many_scans(MAX_SCANS, 7000, 7000).replace(b"\xff\xc2", b"\xff\xca"),
        {"too_costly"},
    ),
    # JPEG: segments
    "empty application segments": (
        lambda: jpeg_with(segment(0xE1, b"http://ns.adob") * TINY_SEGMENTS),
        {"too_costly"},
    ),
    "empty EXIF segments": (lambda: jpeg_with(EMPTY_EXIF * TINY_SEGMENTS), {"too_costly"}),
    "EXIF segments below the limit": (lambda: jpeg_with(EMPTY_EXIF * (MAX_PARTS - 99)), {""}),
    "pieces of profiles": (
        lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1") * TINY_SEGMENTS),
        {"too_costly"},
    ),
    "a profile of megabytes": (
        lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)) * 300),
        {""},
    ),
    "resource blocks": (
        lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400) * 300),
        {""},
    ),
    "tables": (lambda: jpeg_with(segment(0xDB, (b"\0" + b"\1" * 64) * 900) * 300), {"too_costly"}),
    "starts": (lambda: jpeg_with(b"\xff\xd8" * 2_000_000), {"too_costly"}),
    # JPEG: filling
    "megabytes of fill in the header": (lambda: jpeg_with(b"\xff" * 19_000_000), {""}),
    "megabytes of fill and no end": (
        lambda: encoded(picture(), "JPEG")[:300] + b"\xff" * 19_000_000,
        {"not_an_image", "truncated_image"},
    ),
    "megabytes of fill in the scan": (
        lambda: encoded(picture(), "JPEG")[:-2] + b"\xff" * 19_000_000 + LAST_BYTES,
        {""},
    ),
    "megabytes of fill and zeros": (
        lambda: encoded(picture(), "JPEG")[:300] + b"\xff\0" * 9_000_000,
        {"not_an_image", "truncated_image"},
    ),
    "megabytes of junk in the header": (lambda: jpeg_with(segment(0xFE) + bytes(19_000_000)), {""}),
    "megabytes of restarts": (
        lambda: encoded(picture(), "JPEG")[:-2] + b"\xff\xd0" * 9_000_000 + LAST_BYTES,
        {"", "truncated_image"},
    ),
    # PNG
    "a profile that unpacks to a gigabyte": (
        lambda: png_with(png_chunk(b"iCCP", b"x\0\0" + packed(2**28))),
        {""},
    ),
    "text that unpacks to much": (
        lambda: png_with(*[png_chunk(b"zTXt", b"x\0\0" + packed(2**22))] * 300),
        {""},
    ),
    "EXIF text that unpacks to much": (
        lambda: png_with(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + packed(2**26))),
        {"", "not_an_image"},
    ),
    "tiny chunks": (lambda: png_with(png_chunk(b"tEXt", b"a\0b") * 200_000), {"too_costly"}),
    "empty pixel chunks": (lambda: png_with(png_chunk(b"IDAT") * 200_000), {"too_costly"}),
    "palettes": (
        lambda: png_with(png_chunk(b"PLTE", bytes(768)) * 25_000),
        {"", "not_an_image", "too_costly"},
    ),
    "frames promised": (
        lambda: png_with(png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        {""},
    ),
    # TIFF
    "one tile of gigabytes": (
        lambda: tiff(
            tiff_tags(300, 300, 8)
            | {322: (4, [20_000]), 323: (4, [20_000]), 324: (4, [8]), 325: (4, [100])},
            packed(90_000)[:100].ljust(1200, b"\0"),
        ),
        {"too_costly"},
    ),
    "a tile of gigabytes in one dimension": (
        lambda: tiff(
            tiff_tags(16, 16, 8)
            | {322: (4, [2**31 - 16]), 323: (4, [16]), 324: (4, [8]), 325: (4, [100])},
            bytes(100),
        ),
        {"too_costly"},
    ),
    "tiles of one pixel": (
        lambda: tiff(
            tiff_tags(1000, 1000, 8)
            | {322: (4, [1]), 323: (4, [1]), 324: (4, [8] * 10**6), 325: (4, [1] * 10**6)},
            bytes(100),
        ),
        {"too_costly"},
    ),
    "the same strip over and over": (
        lambda: tiff(strips(3000, 3000, [8] * 240_000, [27_000_000] * 240_000, 3000)),
        {"truncated_image", "too_costly"},
    ),
    "strips that lie over each other": (
        lambda: tiff(
            strips(30, 90_000, [8] * 90_000, [2_000_000] * 90_000, 1, form=8), bytes(2_000_000)
        ),
        {"too_costly"},
    ),
    "tags that each take the whole file": (
        lambda: tiff(
            strips(64, 48, [8], [9216], 48)
            | {number: (1, [0] * 90) for number in range(40_000, 65_000)},
            np.asarray(picture()).tobytes(),
        ),
        {""},
    ),
    "a needed tag of megabytes": (
        lambda: tiff(strips(64, 48, [8], [9216], 48) | {347: (1, [0] * 2_000_000)}, bytes(9216)),
        {"too_costly"},
    ),
    "samples": (
        lambda: tiff(strips(64, 48, [8], [9216], 48) | {277: (3, [60_000])}, bytes(9216)),
        {"not_an_image"},
    ),
    "JPEG scans in a TIFF": (
        lambda: tiff(
            strips(7000, 7000, [8], [len(many_scans(2000, 7000, 7000))], 7000, form=7),
            many_scans(2000, 7000, 7000),
        ),
        {"too_costly"},
    ),
    "a dictionary of gigabytes (LZMA)": (
        lambda: tiff(strips(64, 48, [8], [100], 48, form=34925), bytes(100)),
        {"not_an_image"},
    ),
    "a directory that follows itself": (lambda: b"II*\0\x08\0\0\0" + bytes(9), {"not_an_image"}),
    # GIF
    "extensions": (lambda: gif_with(b"!\xfe\0" * 200_000), {"too_costly"}),
    "a comment in pieces": (lambda: gif_with(b"!\xfe" + b"\1a" * 300_000 + b"\0"), {"too_costly"}),
    "comments": (lambda: gif_with((b"!\xfe\xff" + b"a" * 255 + b"\0") * 70_000), {""}),
    "a frame larger than its screen": (
        lambda: gif_with(b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0"),
        {"too_many_pixels"},
    ),
    "frames": (
        lambda: encoded(picture("P"), "GIF")[:-1] + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0" * 9**6,
        {""},
    ),
    # BMP
    "runs": (lambda: run_length_bmp(7000, 7000, b"\1\1" * 6_000_000), {"too_costly"}),
    "jumps over long lines": (
        lambda: run_length_bmp(50_000_000, 1, b"\0\2\xff\xff" * 100),
        {"too_costly"},
    ),
    "jumps": (lambda: run_length_bmp(700, 70_000, b"\0\2\xff\xff" * 9000), {"truncated_image", ""}),
    # WebP
    "a canvas of gigabytes": (
        lambda: webp(webp_canvas(16_383, 16_383, 2), (b"ANIM", bytes(6))),
        {"too_many_pixels"},
    ),
    "a canvas beyond all": (
        lambda: webp(webp_canvas(2**24, 2**24), (b"VP8 ", bytes(30))),
        {"too_many_pixels"},
    ),
    "chunks": (
        lambda: webp(webp_canvas(64, 48), *[(b"junk", b"")] * 200_000),
        {"too_costly"},
    ),
    "animation frames": (
        lambda: webp(webp_canvas(64, 48, 2), (b"ANIM", bytes(6)), *[(b"ANMF", bytes(24))] * 90_000),
        {"not_an_image", "truncated_image"},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_would_take_minutes_or_gigabytes_takes_neither(name):
    make, reasons = BOMBS[name]
    data = make()
    started_s, peak_before = time.process_time(), peak_bytes()
    reason = reason_of(data)
    assert time.process_time() - started_s < MAX_SECONDS
    assert peak_bytes() - peak_before < 1_000_000_000
    assert reason in reasons


def reason_of(data: bytes) -> str:
    """Why a file is no picture; "" if it is one."""
    try:
        open_image(data)
    except ImageError as error:
        return error.reason
    return ""


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


FOREIGN_FILES = [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"%PDF-1.4",
    b"8BPS\0\1",
    b"icns",
    b"\0\0\1\0\1\0" + bytes(99),
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\0\0\0 ftypavif",
    b"\0\0\0 ftypheic",
    b"#define a_width 9\n",
    b"P6 9 9 255\n",
    b"RIFF\0\0\0\0WAVEfmt ",
    b"II+\0\x08\0\0\0",
]


@pytest.mark.parametrize("data", FOREIGN_FILES)
def test_formats_that_are_not_listed_reach_no_decoder(data, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ImageError, match="no image format we read"):
        open_image(data)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp", "tiff", "tiff tiles", "bmp"])
def test_a_file_cut_anywhere_is_refused_or_read_and_nothing_else(name):
    data = GOOD_FILES[name]()
    for end in [*range(60), *range(60, len(data), max(1, len(data) // 60))]:
        assert reason_of(data[:end]) in {"", "not_an_image", "truncated_image", "too_many_pixels"}


def test_only_a_jpeg_that_every_reader_gets_through_is_plain():
    assert is_plain_jpeg(GOOD_FILES["jpeg"]())
    assert is_plain_jpeg(GOOD_FILES["jpeg grey profile"]())
    for bomb in ("EXIF segments below the limit", "megabytes of fill in the header"):
        assert not is_plain_jpeg(BOMBS[bomb][0]())
