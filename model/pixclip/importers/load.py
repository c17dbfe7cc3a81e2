"""Bring public weights into a model: every key accounted for, or nothing is changed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pixclip.config import ModelConfig
from pixclip.importers.formats import FORMATS, find_format
from pixclip.importers.report import DroppedKey, ImportReport, NewTensor, UsedKey
from pixclip.importers.rules import Format
from pixclip.importers.source import Source, WeightsRefused, read_source
from pixclip.importers.stated import compare_facts
from pixclip.importers.translate import (
    MASK,
    Translation,
    compare_depth,
    fit,
    knows,
    new_tensors,
    translate,
)

if TYPE_CHECKING:
    from pixclip.model import PixClip
OWN_PARTS = ("vision.", "adaptor.", "logit_scale")  # of our checkpoints' keys


def import_weights(
    model: "PixClip", path: Path, format_name: str, *, new_projection: bool = False
) -> ImportReport:
    """Fill a model with public weights; tells what became of every key.

    What the source lacks stays as it is: the mask convolution is zero, so that the model equals
    its parent, the text adaptor as it was initialised. `new_projection` leaves the source's
    projection into the shared space out, e.g. where the width of that space is another.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: no such format.
        WeightsRefused: a key is unknown, missing or of another shape, or the source is of
            another architecture; the model is unchanged.
    """
    format_ = find_format(format_name)
    source = read_source(path)
    problems, assumed = compare_facts(format_, path, model.config)
    translation = translate(source.tensors, format_, new_projection)
    state = model.state_dict()
    values, misfits = fit(translation, state)
    unfilled = set(state) - set(translation.parts)
    new = new_tensors(unfilled, format_, new_projection)
    missing = sorted(unfilled - {tensor.target for tensor in new})
    problems += [*compare_depth(translation.parts, state), *translation.problems, *misfits]
    problems += [f"missing: nothing in the source becomes {name}" for name in missing]
    if problems:
        raise WeightsRefused(
            f"{source.file} does not fit as '{format_.name}';",
            problems,
            _advice(source, format_, path, model.config, problems),
        )
    model.load_state_dict(values, strict=False)
    _zero_mask(model, new)
    return _report(source, format_, translation, new, assumed)


def _advice(
    source: Source, format_: Format, path: Path, config: ModelConfig, problems: Sequence[str]
) -> str:
    """What to do about it; another format only if that one would help."""
    if all(problem.startswith("setting: ") for problem in problems):
        return (
            "its keys are right, but it is of a model with other settings: take weights or a "
            "recipe that agree, or import it in Python into a model with its settings "
            "(docs/public-weights.md):"
        )
    for other in FORMATS.values() if any(map(_is_about_keys, problems)) else ():
        if other is not format_ and knows(other, source.tensors):
            also, _ = compare_facts(other, path, config)
            but = f", but that does not fit either ({also[0]})" if also else ""
            return f"its keys are those of '{other.name}'{but}:"
    if all(key.startswith(OWN_PARTS) for key in source.tensors):
        return "it is a checkpoint of PixCLIP: train from it as the parent, nothing is imported:"
    return "give weights, format and architecture that belong together:"


def _is_about_keys(problem: str) -> bool:
    return problem.startswith(("unknown: ", "missing: "))


def _zero_mask(model: "PixClip", new: Sequence[NewTensor]) -> None:
    with torch.no_grad():
        for tensor in new:
            if tensor.target.startswith(MASK):
                model.get_parameter(tensor.target).zero_()


def _report(
    source: Source,
    format_: Format,
    translation: Translation,
    new: Sequence[NewTensor],
    assumed: Sequence[str],
) -> ImportReport:
    used = [
        UsedKey(key, target, tuple(source.tensors[key].shape), str(source.tensors[key].dtype))
        for target, parts in translation.parts.items()
        for key, _ in parts.values()
    ]
    ignored = [DroppedKey(name, reason) for name, reason in source.ignored.items()]
    with source.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ImportReport(
        format=format_.name,
        file=source.file.name,
        sha256=digest,
        used=tuple(used),
        dropped=(*translation.dropped, *ignored),
        new=tuple(new),
        assumed=tuple(assumed),
    )
