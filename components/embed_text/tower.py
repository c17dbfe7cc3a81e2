"""Open the text tower where and as the settings say."""

import logging
from pathlib import Path

import torch

from components.embed_text.settings import EmbedTextSettings
from components.kernel.errors import InputError
from components.kernel.files import write_whole
from pixclip.text.encoder import TextEncoder, usual_dtype

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_tower(
    folder: Path, settings: EmbedTextSettings, decision: Path
) -> tuple[TextEncoder, str]:
    """The text tower and its number format.

    Args:
        folder: of the tower.
        settings: `auto` of its precision is decided by the device of a run's first attempt.
        decision: a file that remembers that, so that a run that goes on elsewhere mixes no formats.

    Raises:
        InputError: the folder is none, or its weights are damaged.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision: str = settings.precision
    if precision == "auto":
        precision = _decide_once(decision, device)
    try:
        return TextEncoder.open(folder, device=device, dtype=DTYPES[precision]), precision
    except (OSError, ValueError) as error:
        raise InputError(f"input text_tower cannot be opened: {error}") from error


def _decide_once(path: Path, device: str) -> str:
    """The precision of the first attempt, or of this one's device if it is the first."""
    usual = next(name for name, dtype in DTYPES.items() if dtype == usual_dtype(device))
    decided = path.read_bytes().decode(errors="replace") if path.exists() else ""
    if decided not in DTYPES:
        write_whole(path, usual)
        decided = usual
    if decided != usual:
        log.warning(
            "embed_text goes on in %s, as it began on another device; %s would use %s. Remove %s "
            "to begin anew",
            *(decided, device, usual, path),
        )
    return decided
