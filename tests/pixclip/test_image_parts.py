"""Files that ask a decoder for minutes or gigabytes, and good files of every kind beside them."""

import io
import resource
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps, ImageSequence

from pixclip.image_limits import MAX_PARTS, MAX_SCANS
from pixclip.images import ImageError, opaque, open_image
from pixclip.jpeg_parts import is_plain_jpeg

MAX_SECONDS = 5.0  # of processor time; each of these files took, or would take, far more


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", width_px: int = 64, height_px: int = 48) -> Image.Image:
    blocks = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(blocks).resize((width_px, height_px), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        smooth.putalpha(Image.linear_gradient("L").resize(smooth.size))
    return smooth.convert(mode)


def frames(mode: str = "RGB") -> dict[str, object]:
    return {
        "save_all": True,
        "append_images": [picture(mode).rotate(angle) for angle in range(30, 180, 30)],
    }


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


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png_with(*chunks: bytes) -> bytes:
    """A good PNG with more chunks before its pixels."""
    good = encoded(picture(), "PNG")
    return good[:33] + b"".join(chunks) + good[33:]


def packed(num_bytes: int) -> bytes:
    return zlib.compress(bytes(num_bytes), 9)


def jpeg_with(segments: bytes, **options: object) -> bytes:
    """A good JPEG with more segments before its tables."""
    good = encoded(picture(), "JPEG", **options)
    return good[:2] + segments + good[2:]


def segment(kind: int, data: bytes = b"") -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data


def many_scans(
    number: int, width_px: int, height_px: int, between: bytes = b"", *, refine: bool = False
) -> bytes:
    """A progressive JPEG whose last scan, of nothing but "the rest is zero", comes again."""

    def huffman(kind: int, value: int) -> bytes:
        return segment(0xC4, bytes([kind]) + bytes([1] + [0] * 15) + bytes([value]))

    def scan(first: int, last: int, bits: str, bit: int = 0) -> bytes:
        bits += "1" * (-len(bits) % 8)
        coded = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
        return segment(0xDA, bytes([1, 1, 0, first, last, bit])) + coded

    num_blocks = -(-width_px // 8) * -(-height_px // 8)
    runs = ("0" + "1" * 14) * -(-num_blocks // 32767)
    frame = segment(0xC2, struct.pack(">BHHB", 8, height_px, width_px, 1) + b"\1\x11\0")
    tables = segment(0xDB, b"\0" + b"\1" * 64) + huffman(0, 0) + huffman(0x10, 0xE0)
    rest = (between + scan(1, 63, runs, 0xDC if refine else 0)) * (number - 1)
    return b"\xff\xd8" + tables + frame + scan(0, 0, "0" * num_blocks) + rest + b"\xff\xd9"


def tiff(tags: dict[int, tuple[int, list[int]]], pixels: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of these tags (number: type and values), its pixels at byte 8."""
    forms = {1: "B", 3: "H", 4: "I"}
    body = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + pixels + bytes(len(pixels) % 2)
    directory, values = struct.pack(f"{order}H", len(tags)), b""
    place = len(body) + 2 + 12 * len(tags) + 4
    for number, (kind, numbers) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(numbers)}{forms[kind]}", *numbers)
        if len(raw) > 4:
            raw, values = struct.pack(f"{order}I", place + len(values)), values + raw
        directory += struct.pack(f"{order}HHI", number, kind, len(numbers)) + raw.ljust(4, b"\0")
    head = body[:4] + struct.pack(f"{order}I", len(body))
    return head + body[8:] + directory + bytes(4) + values


def tiff_tags(width_px: int, height_px: int, compression: int = 1) -> dict[int, tuple[int, list]]:
    return {
        256: (4, [width_px]),
        257: (4, [height_px]),
        258: (3, [8, 8, 8]),
        259: (3, [compression]),
        262: (3, [2]),
        277: (3, [3]),
        284: (3, [1]),
    }


def strips(
    width_px: int, height_px: int, places: list[int], sizes: list[int], rows: int, *, form: int = 1
) -> dict[int, tuple[int, list[int]]]:
    return tiff_tags(width_px, height_px, form) | {
        273: (4, places),
        278: (4, [rows]),
        279: (4, sizes),
    }


def tiles(order: str = ">") -> bytes:
    """The picture in four tiles of 32 x 32, which hang over its lower edge."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:48] = np.asarray(picture())
    parts = [pixels[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32)]
    tags = tiff_tags(64, 48) | {
        322: (3, [32]),
        323: (3, [32]),
        324: (4, [8 + 3072 * number for number in range(4)]),
        325: (4, [3072] * 4),
    }
    return tiff(tags, b"".join(parts), order)


def gif_with(extensions: bytes) -> bytes:
    good = encoded(picture("P"), "GIF")
    start = 13 + (3 << (good[10] & 7) + 1)
    return good[:start] + extensions + good[start:]


def run_length_bmp(width_px: int, height_px: int, runs: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width_px, height_px, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54 + 1024) + header + bytes(1024) + runs


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width_px: int, height_px: int, flags: int = 0) -> tuple[bytes, bytes]:
    size = (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")
    return b"VP8X", struct.pack("<I", flags) + size


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
