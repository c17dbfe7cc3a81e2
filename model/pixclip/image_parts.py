"""Of an untrusted image file, only the parts that its pixels need, in bounded number and size.

A file of a few bytes can keep a decoder busy for minutes, or make it take gigabytes: thousands of
empty scans, segments, frames or tags, tiles larger than the picture, compressed metadata. The size
of the file and that of the picture bound none of these. So nothing reaches a decoder but a file
made anew from the parts that decide the pixels and the orientation: one frame, no colour profile,
no text, no thumbnail, and what remains is counted. This walks over headers alone: it costs a copy
of the bytes.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pixclip.image_limits import (
    MAX_METADATA_BYTES,
    MAX_PARTS,
    MAX_SCANS,
    ImageError,
    ImageFault,
    require_few,
    require_pixels,
)
from pixclip.jpeg_parts import jpeg_parts

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


# Of an untrusted TIFF file, only the first picture, its blocks counted and measured.
#
# A TIFF of a few hundred bytes may declare tiles of gigabytes, blocks that lie over each other
# thousands of times, or tags that each point at the whole file. The directory is written anew from
# the tags that decide the pixels; the pixels stay where they are.


def tiff_parts(data: bytes, max_pixels: int) -> bytes:
    """The file with a directory that holds what its first picture needs; TIFF 6.0, sections 2, 15.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels`, `too_costly`.
        struct.error: the file ends inside its directory.
    """
    order = "<" if data[:2] == b"II" else ">"
    tags = _read_tags(data, order)
    num_blocks = _require_sound(tags, data, order, max_pixels)
    for tag in BLOCK_TAGS:
        if tag in tags:
            numbers = _numbers(tags, tag, order)[:num_blocks]
            packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
            tags[tag] = _Tag(LONG, len(numbers), packed)
    body = data + b"\0" * (len(data) % 2)
    head = body[:4] + struct.pack(f"{order}I", len(body))
    return head + body[8:] + _directory(tags, len(body), order)


KEEPERS: tuple[tuple[str, bytes, Keep], ...] = (
    ("JPEG", rb"\xff\xd8\xff", lambda data, max_pixels: jpeg_parts(data)),
    ("PNG", rb"\x89PNG\r\n\x1a\n", _png),
    ("GIF", rb"GIF8[79]a", _gif),
    ("WEBP", rb"RIFF.{4}WEBPVP8[ LX]", _webp),
    ("BMP", rb"BM", _bmp),
    ("TIFF", rb"II\*\0|MM\0\*", tiff_parts),
)
MAX_BLOCK_BYTES = 2**28  # a strip or tile, decoded; one strip of 50 megapixels in RGB fits
# Decoded tiles may hang over the picture's edges, in all by so many times its size and so much.
MAX_OVERHANG, SPARE_PIXELS = 4, 2**22
MAX_SAMPLES, MAX_BITS = 8, 64
SIZE_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
FORMAT_OF_TYPE = {1: "B", 3: "H", 4: "I"}
LONG = 4

WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, PLANAR = 256, 257, 258, 259, 277, 284
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTES = 273, 278, 279
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
BLOCK_TAGS = (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES)
# Photometry, fill order, orientation, greatest sample, fax options, predictor, colour map, extra
# samples, sample format, JPEG tables, and how YCbCr is coded.
OTHER_TAGS = (262, 266, 274, 281, 292, 293, 317, 320, 338, 339, 347, 529, 530, 531, 532)
KEPT_TAGS = frozenset(
    {WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, PLANAR, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH}
    | {*BLOCK_TAGS, *OTHER_TAGS}
)
# None, fax, LZW, JPEG, deflate, PackBits, Zstandard: what files of the web have.
UNCOMPRESSED, JPEG = 1, 7
COMPRESSIONS = frozenset({UNCOMPRESSED, 2, 3, 4, 5, JPEG, 8, 32773, 32946, 50000})


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    data: bytes


def _read_tags(data: bytes, order: str) -> dict[int, _Tag]:
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, _Tag] = {}
    for position in range(start + 2, start + 2 + 12 * num_entries, 12):
        number, kind, count = struct.unpack_from(f"{order}HHI", data, position)
        if number not in KEPT_TAGS or number in tags or kind not in SIZE_OF_TYPE:
            continue
        num_bytes, place = count * SIZE_OF_TYPE[kind], position + 8
        require_few(num_bytes, MAX_METADATA_BYTES, "bytes in a tag of a TIFF")
        if num_bytes > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        value = data[place : place + num_bytes]
        if len(value) < num_bytes:
            raise ImageError(ImageFault.NOT_AN_IMAGE, f"a TIFF file whose tag {number} is cut off")
        tags[number] = _Tag(kind, count, value)
    return tags


def _numbers(tags: dict[int, _Tag], tag: int, order: str) -> tuple[int, ...]:
    found = tags.get(tag)
    if found is None or found.kind not in FORMAT_OF_TYPE:
        return ()
    return struct.unpack(f"{order}{found.count}{FORMAT_OF_TYPE[found.kind]}", found.data)


def _require_sound(tags: dict[int, _Tag], data: bytes, order: str, max_pixels: int) -> int:
    """The number of blocks (strips or tiles) of a picture that may be decoded."""

    def number(tag: int, default: int) -> int:
        return next(iter(_numbers(tags, tag, order)), default)

    width, height = number(WIDTH, 0), number(LENGTH, 0)
    if not (width and height):
        raise ImageError(ImageFault.NOT_AN_IMAGE, "a TIFF file without a size")
    require_pixels(width, height, max_pixels)
    compression, samples = number(COMPRESSION, 1), number(SAMPLES, 1)
    bits = max(_numbers(tags, BITS, order), default=1)
    if compression not in COMPRESSIONS:
        raise ImageError(
            ImageFault.NOT_AN_IMAGE, f"a TIFF file of compression {compression}, not read"
        )
    if samples > MAX_SAMPLES or bits > MAX_BITS:
        raise ImageError(
            ImageFault.NOT_AN_IMAGE, f"a TIFF file of {samples} samples of {bits} bits"
        )
    is_tiled = TILE_OFFSETS in tags
    block_width = number(TILE_WIDTH, 0) if is_tiled else width
    block_height = (
        number(TILE_LENGTH, 0) if is_tiled else min(number(ROWS_PER_STRIP, height), height)
    )
    if not (block_width and block_height):
        raise ImageError(ImageFault.NOT_AN_IMAGE, "a TIFF file of empty tiles or strips")
    num_blocks = math.ceil(width / block_width) * math.ceil(height / block_height)
    block_pixels = block_width * block_height
    require_few(
        num_blocks * block_pixels,
        MAX_OVERHANG * width * height + SPARE_PIXELS,
        "pixels in the tiles of a TIFF",
    )
    num_blocks *= samples if number(PLANAR, 1) == 2 else 1
    require_few(num_blocks, MAX_PARTS, "strips or tiles in a TIFF")
    require_few(block_pixels * samples * bits // 8, MAX_BLOCK_BYTES, "bytes in a block of a TIFF")
    offsets = _numbers(tags, TILE_OFFSETS if is_tiled else STRIP_OFFSETS, order)
    sizes = _numbers(tags, TILE_BYTES if is_tiled else STRIP_BYTES, order)
    if len(offsets) < num_blocks or (compression != UNCOMPRESSED and len(sizes) < num_blocks):
        raise ImageError(
            ImageFault.NOT_AN_IMAGE, "a TIFF file that does not tell where its pixels are"
        )
    if compression != UNCOMPRESSED:
        require_few(sum(sizes[:num_blocks]), 2 * len(data) + 2**16, "bytes in the blocks of a TIFF")
    if compression == JPEG:
        for offset, size in zip(offsets, sizes, strict=False):
            num_scans = data.count(b"\xff\xda", offset, offset + size)
            require_few(num_scans, MAX_SCANS, "scans in a JPEG of a TIFF")
    return num_blocks


def _directory(tags: dict[int, _Tag], start: int, order: str) -> bytes:
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    place = start + 2 + 12 * len(tags) + 4
    for number, tag in sorted(tags.items()):
        inline = tag.data.ljust(4, b"\0")
        if len(tag.data) > 4:
            inline = struct.pack(f"{order}I", place + len(values))
            values += tag.data + b"\0" * (len(tag.data) % 2)
        entries.append(struct.pack(f"{order}HHI", number, tag.kind, tag.count) + inline)
    return b"".join([*entries, struct.pack(f"{order}I", 0), values])
