"""The keys of a source become those of a model: used, dropped for a reason, or a problem."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pixclip.importers.rules import Format, Use, matcher, target_name
from pixclip.importers.source import unusable

MASK, ADAPTOR, SCALE = "vision.mask_embed.", "adaptor.", "logit_scale"
PROJECTIONS = ("vision.projection.", "text.projection.")
NOT_TAKEN = "as it was initialised: a new one was asked for"


@dataclass(frozen=True, kw_only=True)
class ImportChoices:
    """What to bring, and what to make of it where the model is not just like its source.

    `new_projection`, `new_adaptor`: leave the source's projection into the shared space, or its
    text adaptor, out, e.g. where the width of that space or of the language model is another.
    `resize_positions`: interpolate the table of patch positions for another side of the images.
    `stretch_positions`: stretch the text positions to four times the context, but for the first 20
    (Long-CLIP, FG-CLIP). `text_path`, `text_format`: weights that CLIP's text tower is taken from,
    where the source has none or another is wanted.
    """

    new_projection: bool = False
    new_adaptor: bool = False
    resize_positions: bool = False
    stretch_positions: bool = False
    text_path: Path | None = None
    text_format: str = "openai"


@dataclass(frozen=True)
class DroppedKey:
    """A key of the source that is known and not needed."""

    source: str
    reason: str


@dataclass(frozen=True)
class NewTensor:
    """A tensor of the model that the source has nothing for."""

    target: str
    start: str


@dataclass
class Translation:
    """The keys of a source under our names, and what speaks against it."""

    parts: dict[str, dict[int, tuple[str, Tensor]]] = field(default_factory=dict)  # by target
    num_parts: dict[str, int] = field(default_factory=dict)
    dropped: list[DroppedKey] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, key: str, tensor: Tensor, use: Use, target: str) -> None:
        """Note that `key` becomes `target`, or a part of it."""
        parts = self.parts.setdefault(target, {})
        if use.part in parts:
            self.problems.append(f"twice: {parts[use.part][0]} and {key} both become {target}")
        reason = unusable(tensor)
        if reason:
            self.problems.append(f"{reason}: {key}")
        parts[use.part] = (key, tensor if reason else use.change(tensor))
        self.num_parts[target] = use.num_parts

    def join(self, other: "Translation") -> None:
        """Take over what another source becomes."""
        self.parts |= other.parts
        self.num_parts |= other.num_parts
        self.dropped += other.dropped
        self.problems += other.problems


def translate(
    tensors: Mapping[str, Tensor], format_: Format, choices: ImportChoices
) -> Translation:
    """Every key of `tensors` used, dropped for a known reason, or named as a problem."""
    uses = [(matcher(use.source), use) for use in format_.uses]
    drops = [(matcher(drop.source), drop) for drop in format_.drops]
    found = Translation()
    for key, tensor in tensors.items():
        matches = ((pattern.fullmatch(key), use) for pattern, use in uses)
        match, use = next(((m, use) for m, use in matches if m), (None, None))
        drop = next((drop for pattern, drop in drops if pattern.fullmatch(key)), None)
        if match and use:
            target = target_name(use, match)
            if choices.new_projection and target.startswith(PROJECTIONS):
                found.dropped.append(DroppedKey(key, "a new projection was asked for"))
            elif choices.new_adaptor and target.startswith(ADAPTOR):
                found.dropped.append(DroppedKey(key, "a new adaptor was asked for"))
            else:
                found.add(key, tensor, use, target)
        elif drop:
            found.dropped.append(DroppedKey(key, drop.reason))
        else:
            found.problems.append(f"unknown: {key} {_shape(tensor)}")
    return found


def knows(format_: Format, keys: Iterable[str]) -> bool:
    """Whether a format uses or drops every one of the keys."""
    names = [use.source for use in (*format_.uses, *format_.text_uses)]
    names += [drop.source for drop in format_.drops]
    patterns = [matcher(name) for name in names]
    return all(any(pattern.fullmatch(key) for pattern in patterns) for key in keys)


def fit(
    translation: Translation, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the model that the source gives, and what does not fit `state`."""
    values: dict[str, Tensor] = {}
    problems: list[str] = []
    advised: list[str] = []  # before the others, which follow from them
    for target, parts in translation.parts.items():
        keys = ", ".join(key for key, _ in parts.values())
        tensors = [tensor for _, (_, tensor) in sorted(parts.items())]
        if len(parts) < translation.num_parts[target]:
            problems.append(f"missing: {target} needs more than {keys}")
        elif target not in state:
            problems.append(f"unexpected: {keys} {_shape(tensors[0])}, the model has no {target}")
        elif any(map(unusable, tensors)):
            continue  # told by the translation
        elif _joint_shape(tensors) != [*state[target].shape]:
            # Before any number is read: a view that repeats itself can be larger than memory.
            shapes = " + ".join(map(_shape, tensors))
            problem = f"shape: {keys} {shapes}, {target} is {_shape(state[target])}"
            advice = _width_advice(target, tensors[0], state[target])
            (advised if advice else problems).append(problem + advice)
        elif not all(tensor.isfinite().all() for tensor in tensors):
            problems.append(f"not finite numbers: {keys} ({tensors[0].dtype})")
        else:
            values[target] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return values, [*advised, *problems]


def _width_advice(target: str, theirs: Tensor, ours: Tensor) -> str:
    """Both widths in words, and what to do, where a part may be left out."""
    if target in ("vision.projection.weight", "text.projection.weight"):
        return (
            f" (the weights share a space of width {len(theirs)} with texts, the model one of "
            f"{len(ours)}: give it embed_dim {len(theirs)}, or draw the projection anew with "
            "new_projection)"
        )
    if target == "adaptor.norm.weight":
        return (
            f" (the weights' text adaptor reads a language model of width {len(theirs)}, the text "
            f"tower given has {len(ours)}: give the text tower of that language model, or draw the "
            "adaptor anew with new_adaptor)"
        )
    if target == "vision.position_embedding":
        return (
            f" (tables of {len(theirs) - 1} and {len(ours) - 1} patches: take the architecture of "
            "the weights' image size, or interpolate with resize_positions)"
        )
    if target == "text.position_embedding":
        return (
            f" (texts of {len(theirs)} and {len(ours)} tokens: give the model context_length "
            f"{len(theirs)}; 77 can be stretched to 248)"
        )
    if target == "text.token_embedding.weight":
        return (
            f" (vocabularies of {len(theirs)} and {len(ours)} tokens: give the tokenizer that the "
            "weights were trained with)"
        )
    return ""


def new_tensors(targets: Iterable[str], format_: Format, choices: ImportChoices) -> list[NewTensor]:
    """Those of the unfilled `targets` that may stay as they are, with what they start as."""
    starts = {SCALE: "as it was: a setting of the recipe"}
    if not format_.has_mask:
        starts[MASK] = "zero: the model equals its parent"
    if not format_.has_adaptor:
        starts[ADAPTOR] = "as it was initialised: the source has no text adaptor"
    elif choices.new_adaptor:
        starts[ADAPTOR] = NOT_TAKEN
    if choices.new_projection:
        starts |= dict.fromkeys(PROJECTIONS, NOT_TAKEN)
    return [
        NewTensor(target, start)
        for target in sorted(targets)
        for beginning, start in starts.items()
        if target.startswith(beginning)
    ]


def compare_depth(targets: Iterable[str], state: Iterable[str]) -> Iterator[str]:
    """A plain word where the source has more or fewer blocks than the model."""
    source, model = _num_blocks(targets), _num_blocks(state)
    if source != model:
        yield f"depth: the source's tower has {source} blocks, the model's {model}"
    source, model = _num_blocks(targets, "text"), _num_blocks(state, "text")
    if source != model:
        yield f"depth: the source's text tower has {source} blocks, the model's {model}"


def _num_blocks(names: Iterable[str], tower: str = "vision") -> int:
    blocks = (name.split(".")[2] for name in names if name.startswith(f"{tower}.blocks."))
    return len(set(blocks))


def _joint_shape(tensors: list[Tensor]) -> list[int] | None:
    """The shape of tensors put below each other; `None` if they do not fit."""
    if len(tensors) == 1:
        return [*tensors[0].shape]
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or not tensors[0].ndim:
        return None
    return [sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:]]


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
