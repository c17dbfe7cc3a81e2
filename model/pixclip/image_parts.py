"""Of an untrusted image file, only the parts that its pixels need, in bounded number and size.

A file of a few bytes can keep a decoder busy for minutes, or make it take gigabytes: thousands of
empty scans, segments, frames or tags, tiles larger than the picture, compressed metadata. The size
of the file and that of the picture bound none of these. So nothing reaches a decoder but a file
made anew from the parts that decide the pixels and the orientation: one frame, no colour profile,
no text, no thumbnail, and what remains is counted. This walks over headers alone: it costs a copy
of the bytes.
"""

import re
import struct
from collections.abc import Callable

from pixclip.image_limits import (
    MAX_METADATA_BYTES,
    MAX_PARTS,
    ImageError,
    ImageFault,
    require_few,
    require_pixels,
)
from pixclip.jpeg_parts import jpeg_parts
from pixclip.tiff_parts import tiff_parts

# Pillow decodes BMPs of run lengths in Python, and a jump among them fills up to 255 lines.
MAX_RUN_LENGTH_BYTES, MAX_RUN_LENGTH_WIDTH = 1_000_000, 2**16


def essential_parts(data: bytes, max_pixels: int) -> tuple[str, bytes]:
    """The format of an image file, as Pillow names it, and the file without what is not needed.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels`, or `too_costly`: its pixels are few enough,
            but decoding them would take minutes or gigabytes.
    """
    for name, signature, keep in KEEPERS:
        if re.match(signature, data, re.DOTALL):
            try:
                return name, keep(data, max_pixels)
            except (struct.error, IndexError):
                raise ImageError(
                    ImageFault.NOT_AN_IMAGE, f"a {name} file that is cut off"
                ) from None
    raise ImageError(ImageFault.NOT_AN_IMAGE, "the bytes are no image format we read")


PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
EXIF_TEXT = b"Raw profile type exif\0"  # where ImageMagick kept EXIF before PNG had a chunk for it


def _png(data: bytes, _: int) -> bytes:
    """The chunks of the still picture; PNG 3, 5.3."""
    kept, position, has_exif = [data[:8]], 8, False
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return b"".join(kept)
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        is_exif = kind == b"eXIf" or (
            kind in (b"tEXt", b"zTXt") and data.startswith(EXIF_TEXT, position + 8)
        )
        is_exif &= not has_exif and length <= MAX_METADATA_BYTES
        has_exif |= is_exif
        if is_exif or kind in PIXEL_CHUNKS:
            kept.append(data[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    raise ImageError(ImageFault.TOO_COSTLY, f"more than {MAX_PARTS} chunks in a PNG")


def _gif(data: bytes, _: int) -> bytes:
    """The screen, its colours, the first picture and the extension that rules it; GIF89a, 17-26."""
    flags = data[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    screen, control = data[:position], b""
    for _ in range(MAX_PARTS):
        if data[position] != 0x21:  # the picture; what is none, Pillow refuses
            return screen + control + data[position:]
        start, is_control = position, data[position + 1] == 0xF9
        position += 2
        num_blocks = 0
        while size := data[position]:
            position += size + 1
            num_blocks += 1
            require_few(num_blocks, MAX_PARTS, "blocks in a GIF's extension")
        position += 1
        if is_control:
            control = data[start:position]
    raise ImageError(ImageFault.TOO_COSTLY, f"more than {MAX_PARTS} extensions in a GIF")


def _bmp(data: bytes, _: int) -> bytes:
    """The file as it is; one of run lengths must be small."""
    header_bytes, width = struct.unpack_from("<Ii", data, 14)
    if header_bytes >= 40 and struct.unpack_from("<I", data, 30)[0] in (1, 2):
        require_few(len(data), MAX_RUN_LENGTH_BYTES, "bytes of run lengths in a BMP")
        require_few(abs(width), MAX_RUN_LENGTH_WIDTH, "pixels in a line of a run-length BMP")
    return data


WEBP_ONCE = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
WEBP_METADATA = frozenset({b"EXIF", b"XMP "})


def _webp(data: bytes, max_pixels: int) -> bytes:
    """The first picture's chunks; RFC 9649, 2.7. Opening takes the canvas's memory: checked."""
    require_pixels(*_webp_size(data), max_pixels)
    kept: dict[bytes, bytes] = {}
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            body = b"WEBP" + b"".join(kept.values())
            return b"RIFF" + struct.pack("<I", len(body)) + body
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        if kind in WEBP_ONCE or (kind in WEBP_METADATA and length <= MAX_METADATA_BYTES):
            kept.setdefault(kind, data[position:end])
        position = end
    raise ImageError(ImageFault.TOO_COSTLY, f"more than {MAX_PARTS} chunks in a WebP")


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


Keep = Callable[[bytes, int], bytes]
KEEPERS: tuple[tuple[str, bytes, Keep], ...] = (
    ("JPEG", rb"\xff\xd8\xff", lambda data, max_pixels: jpeg_parts(data)),
    ("PNG", rb"\x89PNG\r\n\x1a\n", _png),
    ("GIF", rb"GIF8[79]a", _gif),
    ("WEBP", rb"RIFF.{4}WEBPVP8[ LX]", _webp),
    ("BMP", rb"BM", _bmp),
    ("TIFF", rb"II\*\0|MM\0\*", tiff_parts),
)
