"""Of an untrusted JPEG file, only what its pixels need: tables, a frame, few scans.

A decoder goes over all pixels for every scan, over all bytes for some kinds of filling, and
Pillow joins and parses what each application segment holds.
"""

import re
import struct
from collections.abc import Iterator, Sequence

from pixclip.image_limits import (
    MAX_ARITHMETIC_SCANS,
    MAX_PARTS,
    MAX_SCANS,
    ImageError,
    ImageFault,
    require_few,
)

MAX_TABLE_BYTES = 300_000  # all tables that can be used take some thousands
MAX_PLAIN_SEGMENTS = 1000  # profiles and depth maps of megabytes come in some hundreds
LONG_FILL = b"\xff" * 1000
SOME_FILL = b"\xff" * 64
FILL = re.compile(rb"\xff{2,}")
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # what begins a segment, or the end
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
JPG, DQT, DRI = 0xC8, 0xDB, 0xDD
TABLES = frozenset({*range(0xC0, 0xD0), DQT, DRI} - {JPG})
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, JPG, 0xCC}
SEQUENTIAL, ARITHMETIC = frozenset({0xC0, 0xC1}), frozenset(range(0xC9, 0xD0)) - {0xCC}
# One each is kept of the application segments that decide about colours or the orientation.
APPLICATION = {
    0xE0: (b"JFIF\0",),
    0xE1: (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xEE: (b"Adobe",),
}


def jpeg_parts(data: bytes) -> bytes:
    """The file with its tables, its frame and its scans; ITU T.81, annex B.

    Raises:
        ImageError: `not_an_image`, `too_costly`.
        struct.error: the file ends inside a segment.
    """
    kept, wanted = [b"\xff\xd8"], {kind: list(names) for kind, names in APPLICATION.items()}
    for kind, segment, end in _segments(data):
        if kind == SOS:
            tables = sum(map(len, kept)) - len(kept[0])
            require_few(tables, MAX_TABLE_BYTES, "bytes of tables in a JPEG")
            frames = [part for part in kept if part[1] in FRAMES]
            return b"".join([*kept, _scans(data, end - len(segment), frames)])
        name = next((name for name in wanted.get(kind, ()) if segment[4:].startswith(name)), None)
        if name:
            wanted[kind].remove(name)
        if name or kind in TABLES:
            kept.append(segment)
    raise ImageError(ImageFault.NOT_AN_IMAGE, "a JPEG file without a scan")


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Kind, bytes (marker and length first) and end of the segments up to the first scan's."""
    end = 2
    for _ in range(MAX_PARTS):
        marker = MARKER.search(data, end)
        if not marker or marker[1][0] == EOI:
            return
        kind, start = marker[1][0], marker.end()
        if kind == SOI:
            end = start
            continue
        (length,) = struct.unpack_from(">H", data, start)
        end = start + max(length, 2)
        yield kind, data[start - 2 : end], end
    raise ImageError(ImageFault.TOO_COSTLY, f"more than {MAX_PARTS} segments in a JPEG")


def is_plain_jpeg(data: bytes) -> bool:
    """Whether every reader gets through the headers quickly: few segments, hardly any fill."""
    try:
        num_segments = sum(1 for _ in _segments(data))
    except (ImageError, struct.error):
        return False
    return num_segments <= MAX_PLAIN_SEGMENTS and LONG_FILL not in data


def _scans(data: bytes, start: int, frames: Sequence[bytes]) -> bytes:
    """The scans of a JPEG, if they are few; fill bytes, which a decoder reads again and again, go.

    A marker's bytes stand in no other place between the scans, so that counting them is enough
    unless something follows the picture or lies between its scans.
    """
    scans = data[start:]
    if SOME_FILL in scans:
        scans = FILL.sub(b"\xff", scans)
    is_arithmetic = any(frame[1] in ARITHMETIC for frame in frames)
    max_scans = MAX_ARITHMETIC_SCANS if is_arithmetic else MAX_SCANS
    if _is_one_scan(scans, frames) or scans.count(b"\xff\xda") <= max_scans:
        return scans
    num_scans, position = 0, 0
    while marker := MARKER.search(scans, position):
        kind, position = marker[1][0], marker.end()
        if kind == EOI:
            return scans[:position]
        num_scans += kind == SOS
        require_few(num_scans, max_scans, "scans in a JPEG")
        position += int.from_bytes(scans[position : position + 2])
    return scans


def _is_one_scan(scans: bytes, frames: Sequence[bytes]) -> bool:
    """Whether the first scan holds all components of a sequential frame: no decoder reads more."""
    if len(frames) != 1 or frames[0][1] not in SEQUENTIAL:
        return False
    num_components, num_in_scan = frames[0][9], scans[4]
    return num_in_scan >= num_components
