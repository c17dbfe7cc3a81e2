"""Bring public weights into a model: every key accounted for, or nothing is changed.

A source's keys are translated, what it states of its model is compared, and a report says what
became of every key.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixclip.config import ModelConfig, TextConfig
from pixclip.importers.facts import Towers, compare_facts
from pixclip.importers.formats import FORMATS, find_format
from pixclip.importers.positions import whole_tables, with_our_positions, with_split_tables
from pixclip.importers.rules import Drop, Format
from pixclip.importers.source import Source, WeightsRefused, read_source
from pixclip.importers.text_rules import OTHER_TEXT_TOWER
from pixclip.importers.translation import (
    MASK,
    DroppedKey,
    ImportChoices,
    NewTensor,
    Translation,
    compare_depth,
    fit,
    knows,
    new_tensors,
    translate,
)

if TYPE_CHECKING:
    from pixclip.model import PixClip

ADAPTOR_POOLING = "caption_and_end"  # of LLM2CLIP's code, which PixCLIP's has too
OWN_PARTS = ("vision.", "adaptor.", "text.", "logit_scale")  # of our checkpoints' keys


@dataclass(frozen=True)
class UsedKey:
    """A key of the source that is in the model now."""

    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Every key of the source and every tensor of the model, each exactly once."""

    format: str
    file: str
    sha256: str
    text_format: str = ""  # of the file that CLIP's text tower is from, if that is another
    text_file: str = ""
    text_sha256: str = ""
    used: tuple[UsedKey, ...]
    dropped: tuple[DroppedKey, ...]
    new: tuple[NewTensor, ...]
    changed: tuple[str, ...]  # tensors that were made longer or shorter, and how
    assumed: tuple[str, ...]  # facts that neither the format nor the source tells

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON, with counts first."""
        counts = {
            "num_used": len(self.used),
            "num_dropped": len(self.dropped),
            "num_new": len(self.new),
        }
        return counts | dataclasses.asdict(self)


def import_weights(
    model: "PixClip", path: Path, format_name: str, choices: ImportChoices | None = None
) -> ImportReport:
    """Fill a model with public weights and report what became of every key.

    What the source lacks stays as it is: the mask convolution is zero, so that the model equals
    its parent, the text adaptor as it was initialised. CLIP's own text tower is brought to a model
    that has one, and dropped else.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: no such format, or weights of a text tower for a model that has none.
        WeightsRefused: a key is unknown, missing or of another shape, or the source is of
            another architecture; the model is unchanged.
    """
    choices = choices or ImportChoices()
    format_, config = find_format(format_name), model.config
    source = read_source(path)
    has_clip_text = config.text.kind == "clip"
    if choices.text_path and not has_clip_text:
        raise ValueError("text_path is for a model with CLIP's own text tower (text.kind clip)")
    text = _text_source(choices)
    with_text = has_clip_text and text is None
    towers = ("vision", "text") if with_text else ("vision",)
    problems, assumed = compare_facts(
        format_, source, config, towers, any_size=choices.resize_positions
    )
    translation = translate(source.tensors, _asked_for(format_, with_text), choices)
    if text:
        more_problems, more_assumed = compare_facts(text[1], text[0], config, ("text",))
        problems, assumed = [*problems, *more_problems], [*assumed, *more_assumed]
        translation.join(translate(text[0].tensors, _text_alone(text[1]), choices))
    if format_.has_adaptor and not choices.new_adaptor:
        assumed += _pooling_told(config)
    state = whole_tables(model.state_dict())
    changed = with_our_positions(translation.parts, translation.num_parts, state, choices)
    values, misfits = fit(translation, state)
    unfilled = set(state) - set(translation.parts)
    new = new_tensors(unfilled, format_, choices)
    missing = sorted(unfilled - {tensor.target for tensor in new})
    problems += [*compare_depth(translation.parts, state), *translation.problems, *misfits]
    problems += [f"missing: nothing in the source becomes {name}" for name in missing]
    if problems:
        raise WeightsRefused(
            f"{source.file} does not fit as '{format_.name}';",
            problems,
            _advice(source, format_, config, towers, problems),
        )
    model.load_state_dict(with_split_tables(values, model.state_dict()), strict=False)
    _zero_mask(model, new)
    report = _report(source, format_, translation, new)
    report = replace(report, changed=tuple(changed), assumed=tuple(assumed))
    return _with_text_origin(report, *text) if text else report


def _pooling_told(config: ModelConfig) -> list[str]:
    """A word where the text tower pools otherwise than the one that an adaptor was trained on."""
    pooling = config.text.pooling if isinstance(config.text, TextConfig) else ADAPTOR_POOLING
    if pooling == ADAPTOR_POOLING:
        return []
    return [
        f"text.pooling={pooling}: the weights' text adaptor was trained on {ADAPTOR_POOLING}; make "
        f"the text tower with adapt_text.text.pooling={ADAPTOR_POOLING}"
    ]


TextSource = tuple[Source, Format]


def _text_source(choices: ImportChoices) -> TextSource | None:
    """The weights that the text tower is taken from, if they are others."""
    if choices.text_path is None:
        return None
    return read_source(choices.text_path), find_format(choices.text_format)


def _with_text_origin(report: ImportReport, source: Source, format_: Format) -> ImportReport:
    return replace(
        report,
        text_format=format_.name,
        text_file=source.file.name,
        text_sha256=_digest(source.file),
    )


def _asked_for(format_: Format, with_text: bool) -> Format:
    """The format with its text tower among what is used, or among what is dropped."""
    if with_text:
        return replace(format_, uses=(*format_.uses, *format_.text_uses))
    drops = [Drop(use.source, OTHER_TEXT_TOWER) for use in format_.text_uses]
    return replace(format_, drops=(*format_.drops, *drops))


def _text_alone(format_: Format) -> Format:
    others = [Drop(use.source, "only the text tower was asked for") for use in format_.uses]
    return replace(format_, uses=format_.text_uses, drops=(*format_.drops, *others))


def _advice(
    source: Source, format_: Format, config: ModelConfig, towers: Towers, problems: Sequence[str]
) -> str:
    """What to do about it; another format only if that one would help."""
    if all(problem.startswith("setting: ") for problem in problems):
        return (
            "its keys are right, but it is of a model with other settings: take weights or "
            "settings of the model that agree (docs/public-weights.md):"
        )
    for other in FORMATS.values() if any(map(_is_about_keys, problems)) else ():
        if other is not format_ and knows(other, source.tensors):
            also, _ = compare_facts(other, source, config, towers)
            but = f", but that does not fit either ({also[0]})" if also else ""
            return f"its keys are those of '{other.name}'{but}:"
    if all(key.startswith(OWN_PARTS) for key in source.tensors):
        return "it is a checkpoint of PixCLIP: give its folder, and checkpoint as the format:"
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
) -> ImportReport:
    used = [
        UsedKey(key, target, tuple(tensor.shape), str(tensor.dtype))
        for target, parts in translation.parts.items()
        for key, tensor in parts.values()
    ]
    ignored = [DroppedKey(name, reason) for name, reason in source.ignored.items()]
    return ImportReport(
        format=format_.name,
        file=source.file.name,
        sha256=_digest(source.file),
        used=tuple(used),
        dropped=(*translation.dropped, *ignored),
        new=tuple(new),
        changed=(),
        assumed=(),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
