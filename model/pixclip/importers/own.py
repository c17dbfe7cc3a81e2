"""A checkpoint of ours as what another training starts from: it is taken as it is, or refused.

Nothing is translated, stretched or drawn anew: towers, adaptor and temperature go on, and so does
what reads texts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixclip.checkpoint import load
from pixclip.checksums import (
    TEXT_TOWER_NAME,
    WEIGHTS_NAME,
    read_checksums,
    sha256_of,
    verify,
    weights_digest,
)
from pixclip.config import ClipTextConfig, ModelConfig, to_dict
from pixclip.importers.load import ImportReport, UsedKey
from pixclip.importers.positions import whole_tables
from pixclip.importers.source import WeightsRefused
from pixclip.text.clip_tokenizer import ClipTokenizer

if TYPE_CHECKING:
    from pixclip.model import PixClip

CHECKPOINT = "checkpoint"  # as the name of a format
# The name is what the model is called from now on; of the mask's bias the weights decide.
MAY_DIFFER = ("name", "vision.mask_bias")


def import_checkpoint(
    folder: Path, config: ModelConfig, text_tower: Path
) -> tuple["PixClip", ImportReport]:
    """The model of a checkpoint, its temperature too, which must be the one that `config` asks for.

    `text_tower` is what will read the model's texts: a language model, or a tokenizer of CLIP's.

    Raises:
        CheckpointError: the folder is no checkpoint, or is damaged.
        WeightsRefused: the checkpoint is of another model, or read texts otherwise; every
            difference is listed with both sides.
    """
    model = load(folder)
    problems = [
        f"{name}: the checkpoint has {theirs!r}, the model that was asked for {ours!r}"
        for name, theirs, ours in differences(model.config, config)
    ]
    problems += _text_problems(folder, text_tower, model.config)
    if problems:
        raise WeightsRefused(
            f"{folder} is not the model '{config.name}' that was asked for;",
            problems,
            "take the recipe and the settings that the checkpoint was made with, and the text "
            f"tower that it holds ({folder / TEXT_TOWER_NAME}):",
        )
    model.config = model.config.changed(name=config.name)
    report = ImportReport(
        format=CHECKPOINT,
        file=WEIGHTS_NAME,
        sha256=weights_digest(folder),
        used=tuple(
            UsedKey(name, name, tuple(tensor.shape), str(tensor.dtype))
            for name, tensor in whole_tables(model.state_dict()).items()
        ),
        dropped=(),
        new=(),
        changed=(),
        assumed=(),
    )
    return model, report


def differences(theirs: ModelConfig, ours: ModelConfig) -> Iterator[tuple[str, object, object]]:
    """In which values two configurations differ: name, the first's value, the second's."""
    first, second = (dict(_flat(to_dict(config))) for config in (theirs, ours))
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name), second.get(name)
        if values[0] != values[1] and name not in MAY_DIFFER:
            yield name, *values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text_problems(folder: Path, text_tower: Path, config: ModelConfig) -> list[str]:
    """How what reads texts differs from what the checkpoint was trained with."""
    own, start = folder / TEXT_TOWER_NAME, f"{TEXT_TOWER_NAME}/"
    sums = {name: sum_ for name, sum_ in read_checksums(folder).items() if name.startswith(start)}
    if not sums:
        return [f"there is no {own}: nothing tells how the checkpoint's texts were read"]
    verify(folder, sums)
    if isinstance(config.text, ClipTextConfig):
        return _tokenizer_problems(own, text_tower, config.text)
    theirs, ours = {name.removeprefix(start): sums[name] for name in sums}, _digests(text_tower)
    changed = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return [
        f"text tower: {name} is not the same file in {own} and {text_tower}"
        for name in sorted(changed)
    ]


def _tokenizer_problems(own: Path, text_tower: Path, config: ClipTextConfig) -> list[str]:
    try:
        if ClipTokenizer.open(text_tower, config).is_same(ClipTokenizer.open(own, config)):
            return []
    except (OSError, ValueError) as error:
        return [f"tokenizer: {error}"]
    return [f"tokenizer: that of {text_tower} is another than the checkpoint's, {own}"]


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of a text tower's files, by relative path; what begins so is a pipeline's."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(("_", ".")) for part in name.parts):
            found[name.as_posix()] = sha256_of(path)
    return found
