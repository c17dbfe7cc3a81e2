"""Low-rank adapters through peft: put on, saved, merged."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pixclip.checksums import sha256_of
from pixclip.files import written_whole
from pixclip.text.adapt.job import Lora

log = logging.getLogger(__name__)


def put_on(model: Any, config: Lora) -> Any:
    """The model with fresh adapters on every linear layer but its head; only they are trained."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        bias="none",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for the state of checkpointing by its name of old.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, settings)


def save(adapted: Any, path: Path) -> None:
    """Save the adapters alone, by rename."""
    from peft import get_peft_model_state_dict

    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted)
    with written_whole(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(partial))
        digest = sha256_of(partial)
    _mark(path).write_text(digest, encoding="utf-8")


def is_whole(path: Path) -> bool:
    """Whether saved adapters are there as they were saved; tells of those that are damaged."""
    if not path.is_file():
        return False
    mark = _mark(path).read_bytes() if _mark(path).is_file() else b""
    if sha256_of(path).encode() == mark:
        return True
    log.warning("%s is damaged: its stage goes on from its last state", path)
    return False


def _mark(path: Path) -> Path:
    return path.with_suffix(".sha256")


def load(adapted: Any, path: Path) -> None:
    """Put saved adapters in place of the fresh ones."""
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(adapted, load_file(str(path)))
    assert not result.unexpected_keys, f"{path} is of other adapters: {result.unexpected_keys}"


def merge(adapted: Any) -> Any:
    """The plain model with its adapters added into its weights."""
    return adapted.merge_and_unload(safe_merge=True)
