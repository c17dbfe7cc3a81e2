"""What every key of a source becomes, and where every tensor of the model is from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pixclip.importers.report import DroppedKey, NewTensor
from pixclip.importers.rules import Format, Use, matcher, target_name

MASK, ADAPTOR, PROJECTION, SCALE = (
    "vision.mask_embed.",
    "adaptor.",
    "vision.projection.",
    "logit_scale",
)


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
        parts[use.part] = (key, use.change(tensor))
        self.num_parts[target] = use.num_parts


def translate(tensors: Mapping[str, Tensor], format_: Format, new_projection: bool) -> Translation:
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
            if new_projection and target.startswith(PROJECTION):
                found.dropped.append(DroppedKey(key, "a new projection was asked for"))
            else:
                found.add(key, tensor, use, target)
        elif drop:
            found.dropped.append(DroppedKey(key, drop.reason))
        else:
            found.problems.append(f"unknown: {key} {_shape(tensor)}")
    return found


def knows(format_: Format, keys: Iterable[str]) -> bool:
    """Whether a format uses or drops every one of the keys."""
    names = [*(use.source for use in format_.uses), *(drop.source for drop in format_.drops)]
    patterns = [matcher(name) for name in names]
    return all(any(pattern.fullmatch(key) for pattern in patterns) for key in keys)


def fit(
    translation: Translation, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the model that the source gives, and what does not fit `state`."""
    values: dict[str, Tensor] = {}
    problems: list[str] = []
    for target, parts in translation.parts.items():
        keys = ", ".join(key for key, _ in parts.values())
        tensors = [tensor for _, (_, tensor) in sorted(parts.items())]
        if len(parts) < translation.num_parts[target]:
            problems.append(f"missing: {target} needs more than {keys}")
        elif target not in state:
            problems.append(f"unexpected: {keys} {_shape(tensors[0])}, the model has no {target}")
        elif _joint_shape(tensors) != [*state[target].shape]:
            # Before any number is read: a view that repeats itself can be larger than memory.
            shapes = " + ".join(map(_shape, tensors))
            problems.append(f"shape: {keys} {shapes}, {target} is {_shape(state[target])}")
        elif not all(tensor.is_floating_point() and tensor.isfinite().all() for tensor in tensors):
            problems.append(f"not finite numbers: {keys} ({tensors[0].dtype})")
        else:
            values[target] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return values, problems


def new_tensors(targets: Iterable[str], format_: Format, new_projection: bool) -> list[NewTensor]:
    """Those of the unfilled `targets` that may stay as they are, with what they start as."""
    starts = {SCALE: "as it was: a setting of the recipe"}
    if not format_.has_mask:
        starts[MASK] = "zero: the model equals its parent"
    if not format_.has_adaptor:
        starts[ADAPTOR] = "as it was initialised: the source has no text adaptor"
    if new_projection:
        starts[PROJECTION] = "as it was initialised: a new projection was asked for"
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


def _num_blocks(names: Iterable[str]) -> int:
    blocks = (name.split(".")[2] for name in names if name.startswith("vision.blocks."))
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
