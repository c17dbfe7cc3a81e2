"""Image files made by hand: pictures in every form, and parts that no encoder writes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


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
