"""Open the text tower where and as the settings say."""

from pathlib import Path

import torch

from components.embed_text.settings import EmbedTextSettings
from components.kernel.errors import InputError
from pixclip.text.encoder import TextEncoder

DTYPES = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}


def open_tower(folder: Path, settings: EmbedTextSettings) -> TextEncoder:
    """The text tower.

    Raises:
        InputError: the folder is none, or its weights are damaged.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return TextEncoder.open(folder, device=device, dtype=DTYPES[settings.precision])
    except (OSError, ValueError) as error:
        raise InputError(f"input text_tower cannot be opened: {error}") from error
