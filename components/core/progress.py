"""Progress bars on long work: live on a terminal, a line every half minute in a log."""

import sys
from typing import Any

from tqdm import tqdm


def progress(description: str, total: int | None = None, unit: str = "region") -> "tqdm[Any]":
    """A progress bar with rate and time left; use it as a context manager and `update(n)`."""
    is_live = sys.stderr.isatty()
    return tqdm(
        desc=description,
        total=total,
        unit=f" {unit}",
        mininterval=0.2 if is_live else 30,
        dynamic_ncols=is_live,
        file=sys.stderr,
    )
