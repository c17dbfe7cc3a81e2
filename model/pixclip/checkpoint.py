"""Checkpoints: a folder that says all about a model and holds nothing that can run.

config.json        the configuration, preprocessing included
model.safetensors  vision tower, adaptor or CLIP's text tower, and temperature
notes.json         where the weights come from
text_tower/        the language model, or the tokenizer of CLIP's text tower (may be absent)
checksums.json     SHA-256 of all of these, written last
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixclip.checksums import (
    CHECKSUMS_NAME,
    TEXT_TOWER_NAME,
    WEIGHTS_NAME,
    CheckpointError,
    read_checksums,
    verify,
    write_checksums,
)
from pixclip.config import ClipTextConfig, ModelConfig, from_dict, to_dict
from pixclip.files import link_or_copy
from pixclip.json_files import JsonError, read_json_object, shown
from pixclip.model import PixClip, ReadTexts
from pixclip.remote import is_in_store, local_folder
from pixclip.text.clip_tokenizer import ClipTokenizer

CONFIG_NAME, NOTES_NAME = "config.json", "notes.json"
MAX_LISTED = 20  # keys named in a message
# Its checksums fit, so to fetch it again would change nothing.
OTHER = "it was saved so: take another checkpoint"

__all__ = ["CheckpointError", "load", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    model: PixClip,
    *,
    text_tower: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    link: bool = False,
) -> None:
    """Write a checkpoint.

    With `link` the files of the text tower become hard links where the file system can: only for
    a tower that nobody changes and whose files' modes are not somebody else's business. One that
    lies in a checkpoint is compared with its checksums, so that damage is never sealed anew.

    A checkpoint that was in the folder is replaced; `text_tower` may be its own. A folder counts as
    a checkpoint only with its checksums: they go first and come last, so a killed run leaves the
    old one or none, never a mixed one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if text_tower is not None:
        _require_as_saved(text_tower)
    _replace_text_tower(folder, text_tower, link)
    _write_json(folder / CONFIG_NAME, to_dict(model.config))
    _write_json(folder / NOTES_NAME, dict(notes or {}))
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_NAME)
    names = (CONFIG_NAME, NOTES_NAME, WEIGHTS_NAME, *_text_tower_files(folder))
    write_checksums(folder, names)


def _require_as_saved(text_tower: Path) -> None:
    """Compare a text tower inside a checkpoint with that checkpoint's checksums.

    Raises:
        CheckpointError: a file is damaged or was altered.
    """
    around = text_tower.parent
    if text_tower.name == TEXT_TOWER_NAME and (around / CHECKSUMS_NAME).is_file():
        sums, start = read_checksums(around), f"{TEXT_TOWER_NAME}/"
        verify(around, {name: sums[name] for name in sums if name.startswith(start)})


def _replace_text_tower(folder: Path, text_tower: Path | None, link: bool) -> None:
    """Take the checksums away and put another text tower, or none, in the place of the old one."""
    for left_behind in folder.glob(".draft-*"):  # by a save that was killed
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as scratch:
        draft = Path(scratch) / TEXT_TOWER_NAME
        if text_tower is not None:
            # What begins so is a pipeline's, not the tower's.
            ignore = shutil.ignore_patterns("_*", ".*")
            copy = link_or_copy if link else shutil.copyfile
            shutil.copytree(text_tower, draft, ignore=ignore, copy_function=copy)
        (folder / CHECKSUMS_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder / TEXT_TOWER_NAME, ignore_errors=True)
        if draft.exists():
            draft.rename(folder / TEXT_TOWER_NAME)


def load(
    path_or_uri: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> PixClip:
    """The model of a checkpoint folder or of its URI (file://, s3://, …), ready to embed.

        model = pixclip.load("checkpoint")
        model.encode_image("street.jpg", [(10, 20, 200, 180)])

    Weights become float32 unless `dtype` says otherwise. Nothing in the folder is executed. The
    text tower is checked and opened when the first text comes. A damaged copy of a checkpoint in
    a store is fetched anew.

    Raises:
        CheckpointError: the folder is no checkpoint, a file is damaged, or its weights are not
            exactly those of its configuration; lists every difference.
    """
    folder = local_folder(path_or_uri)
    if not folder.exists():
        raise CheckpointError(
            f"there is no folder {folder}; a registered model (models:/…) is brought by `pixclip "
            "fetch`, weights of other projects are imported (pixclip.importers)"
        )
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a file; a checkpoint is a folder. Weights of other projects are "
            "imported (pixclip.importers), and pickles are never read"
        )
    sums = read_checksums(folder)
    is_text = {name: name.startswith(f"{TEXT_TOWER_NAME}/") for name in sums}
    _require_files(folder, sums)
    check = partial(_verify, path_or_uri, folder)
    check({name: sums[name] for name in sums if not is_text[name]})
    text_sums = {name: sums[name] for name in sums if is_text[name]}
    open_text = partial(_open_text_tower, folder, text_sums, check) if text_sums else None
    config, weights = _read_config(folder), _read_weights(folder / WEIGHTS_NAME)
    _require_size(folder / WEIGHTS_NAME, config, weights)
    model = _build(folder / CONFIG_NAME, config, open_text)
    _require_same_tensors(folder / WEIGHTS_NAME, model.state_dict(), weights)
    wanted = dtype or torch.float32
    model.load_state_dict({n: w.to(wanted) for n, w in weights.items()}, strict=True, assign=True)
    return model.to(device).eval()


def _verify(path_or_uri: str | os.PathLike[str], folder: Path, sums: Mapping[str, str]) -> None:
    """Compare files with their checksums; a damaged copy from a store is fetched once more."""
    try:
        verify(folder, sums)
    except CheckpointError:
        if not is_in_store(path_or_uri):
            raise
        local_folder(path_or_uri, fetch_again=True)
        verify(folder, sums)


def _build(
    path: Path, config: ModelConfig, open_text: Callable[[str], ReadTexts] | None
) -> PixClip:
    """The model without its weights: no memory, no random numbers, as every weight is replaced."""
    try:
        with torch.device("meta"):
            return PixClip(config, open_text)
    except (RuntimeError, TypeError) as error:  # sides whose product PyTorch cannot count
        raise CheckpointError(
            f"{path} describes a model that cannot be built ({error}); {OTHER}"
        ) from None


def _require_files(folder: Path, sums: Mapping[str, str]) -> None:
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if name not in sums]
    if missing:
        raise CheckpointError(f"{folder}: {CHECKSUMS_NAME} does not list {', '.join(missing)}")


def _read_config(folder: Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, read_json_object(folder / CONFIG_NAME))
    except JsonError as error:
        raise CheckpointError(f"{error}; {OTHER}") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_NAME}: {error}; {OTHER}") from None


def read_notes(folder: Path) -> dict[str, Any]:
    """What was noted of where a checkpoint's weights come from.

    Raises:
        CheckpointError: the notes are missing or damaged.
    """
    try:
        return dict(read_json_object(folder / NOTES_NAME))
    except JsonError as error:
        raise CheckpointError(f"{error}; {OTHER}") from None


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file ({shown(error)}); pickles and other formats are never "
            "read"
        ) from None


def _require_size(path: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Before the model is built: a few bytes of configuration can ask for more than there is."""
    name, wanted = "vision.position_embedding", [config.vision.grid**2 + 1, config.vision.width]
    num_layers = config.vision.num_layers
    if isinstance(config.text, ClipTextConfig):
        num_layers += config.text.num_layers
    elif config.adaptor:
        num_layers += config.adaptor.num_layers
    found = list(weights[name].shape) if name in weights else "missing"
    if found != wanted:
        problem = f"{name} is {found}, not {wanted}"
    elif num_layers > len(weights):
        problem = f"there are {len(weights)} tensors for {num_layers} layers"
    else:
        return
    raise CheckpointError(f"{path} does not hold the weights of {CONFIG_NAME}: {problem}")


def _require_same_tensors(
    path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape or not found[name].is_floating_point():
            problems.append(
                f"{name} is {found[name].dtype} {list(found[name].shape)}, "
                f"not floating point {list(wanted[name].shape)}"
            )
    if problems:
        shown = "; ".join(sorted(problems)[:MAX_LISTED])
        raise CheckpointError(
            f"{path} does not hold the weights of {CONFIG_NAME}, {len(problems)} differences: "
            f"{shown}{'; …' if len(problems) > MAX_LISTED else ''}"
        )


def _open_text_tower(
    folder: Path,
    sums: Mapping[str, str],
    check: Callable[[Mapping[str, str]], None],
    device: str,
) -> ReadTexts:
    from pixclip.text.encoder import TextEncoder

    check(sums)
    unlisted = sorted(set(_text_tower_files(folder)) - set(sums))
    if unlisted:
        raise CheckpointError(
            f"{folder}: {CHECKSUMS_NAME} does not list {', '.join(unlisted)}, which the text tower "
            "would read; remove what was added"
        )
    text = _read_config(folder).text
    try:
        if isinstance(text, ClipTextConfig):
            return ClipTokenizer.open(folder / TEXT_TOWER_NAME, text)
        encoder = TextEncoder.open(folder / TEXT_TOWER_NAME, device=device)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: the text tower cannot be opened: {error}") from error
    if encoder.config != text:
        raise CheckpointError(
            f"{folder}: the text tower's own settings {encoder.config} are not those of "
            f"{CONFIG_NAME}; the adaptor was trained on another text tower"
        )
    return encoder.encode


def _text_tower_files(folder: Path) -> list[str]:
    files = (folder / TEXT_TOWER_NAME).rglob("*")
    return [path.relative_to(folder).as_posix() for path in files if path.is_file()]


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
