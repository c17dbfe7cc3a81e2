"""Check a picture in a process of its own, if the last run died while it decoded it.

A decoder is a C library: a picture may crash it, or make the system end the whole process for its
memory, and every rerun would end there again. So each picture that is being decoded has a mark in
`_work/decoding`; whoever finds marks of a run that died treats these pictures as suspects. Most are
innocent, the run was killed for other reasons: they give what they would have given.

    python -m components.ingest.isolated MAX_PIXELS < picture
"""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from components.ingest.check import CheckedImage, check_image
from data_contracts.reasons import ImageReason
from pixclip.images import ImageError, open_image

MAX_MEMORY_BYTES, MAX_CPU_S, MAX_WAIT_S = 2**33, 120, 600
COMMAND = (sys.executable, "-m", "components.ingest.isolated")
Check = Callable[[bytes, int, int], tuple[CheckedImage, bytes]]


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
