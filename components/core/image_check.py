"""Check an image that comes from elsewhere: real format, size limits, upright, perceptual hash.

A picture over which an earlier run died is checked in a process of its own.
"""

import hashlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, _imaging

from components.core.image_hash import perceptual_hash
from data_contracts.reasons import ImageReason
from pixclip.images import ImageError, OpenedImage, open_image, read_image
from pixclip.jpeg_parts import is_plain_jpeg

JPEG_QUALITY = 95
BLOCKS_PER_THREAD = 4
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class CheckedImage:
    """What a check found; `reason` is "" for a usable image."""

    reason: str = ""
    detail: str = ""
    sha256: str | None = None  # of the bytes as they came
    width_px: int | None = None  # upright
    height_px: int | None = None
    phash: str | None = None
    stored_width: int | None = None  # in pixels, before the EXIF orientation was applied
    stored_height: int | None = None
    orientation: int | None = None  # the EXIF orientation that was applied, 1 to 8


def reuse_pixel_memory(num_threads: int) -> None:
    """Let Pillow keep freed pixel memory (at most 16 MB a block) for the next image.

    Decoding then takes a fifth less: fresh memory costs page faults. Pillow's documentation
    calls it `Image.core.set_blocks_max`, which its types do not export.
    """
    _imaging.set_blocks_max(BLOCKS_PER_THREAD * num_threads)


def looks_like_image(head: bytes) -> bool:
    """Whether the first bytes of a body are those of a format that `open_image` reads."""
    return head.startswith(SIGNATURES)


def check_image(data: bytes, max_pixels: int, min_side_px: int) -> tuple[CheckedImage, bytes]:
    """Check an image; with it, its upright JPEG if its bytes are not one (else b"").

    Raises:
        MemoryError: there is too little to decode it here.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        opened = read_image(data, max_pixels)
        keeps_bytes = is_upright_jpeg(data, opened)
    except ImageError as error:
        return CheckedImage(error.reason, error.detail, sha256), b""
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        return CheckedImage(ImageReason.TRUNCATED_IMAGE, type(error).__name__, sha256), b""
    image = opened.upright
    if min(image.size) < min_side_px:
        detail = f"{image.width} x {image.height}, below {min_side_px} pixels"
        return CheckedImage(ImageReason.TOO_SMALL, detail, sha256), b""
    checked = CheckedImage(
        sha256=sha256,
        width_px=image.width,
        height_px=image.height,
        phash=perceptual_hash(image),
        stored_width=opened.stored_width,
        stored_height=opened.stored_height,
        orientation=opened.orientation,
    )
    return checked, b"" if keeps_bytes else _as_jpeg(image)


def is_upright_jpeg(data: bytes, opened: OpenedImage) -> bool:
    """Whether the bytes can be kept as they are: JPEG, RGB or grey, not turned, cheap to read.

    Where the metadata is damaged, others may turn the picture: it is written anew without.
    """
    return (
        data.startswith(b"\xff\xd8\xff")
        and opened.stored_mode in ("RGB", "L")
        and opened.orientation == 1
        and opened.has_sound_metadata
        and is_plain_jpeg(data)
    )


def _as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, exif=b"")
    return buffer.getvalue()


MAX_MEMORY_BYTES, MAX_CPU_S, MAX_WAIT_S = 2**33, 120, 600
COMMAND = (sys.executable, "-m", "components.core.image_check")
Check = Callable[[bytes, int, int], tuple[CheckedImage, bytes]]


# Check a picture in a process of its own, if the last run died while it decoded it.
#
# A decoder is a C library: a picture may crash it, or make the system end the whole process for its
# memory, and every rerun would end there again. So each picture that is being decoded has a mark in
# `_work/decoding`; whoever finds marks of a run that died treats these pictures as suspects. Most
# are innocent, the run was killed for other reasons: they give what they would have given.
#
#     python -m components.core.image_check MAX_PIXELS < picture


class Suspects:
    """Marks what is being decoded, and knows what a dead run was decoding."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._names = {path.name for path in folder.iterdir()}

    @contextmanager
    def check_for(self, url: str) -> Iterator[Check]:
        """How to check the picture of a URL; while it goes on, the picture is marked."""
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        mark = self._folder / name
        mark.touch()
        try:
            yield check_in_isolation if name in self._names else check_image
        finally:
            mark.unlink(missing_ok=True)


def check_in_isolation(
    data: bytes, max_pixels: int, min_side_px: int, command: Sequence[str] = COMMAND
) -> tuple[CheckedImage, bytes]:
    """As `check_image`; a picture that ends the process or takes too long is `too_costly`."""
    try:
        subprocess.run(
            [*command, str(max_pixels)],
            input=data,
            capture_output=True,
            timeout=MAX_WAIT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return CheckedImage(
            ImageReason.TOO_COSTLY, "decoding it ended the process, or did not end"
        ), b""
    return check_image(data, max_pixels, min_side_px)


def main() -> None:
    """Decode the picture that comes in, and end well."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    with suppress(ImageError):
        open_image(sys.stdin.buffer.read(), int(sys.argv[1]))
    os._exit(0)  # whatever a damaged heap does on the way out


if __name__ == "__main__":
    main()
