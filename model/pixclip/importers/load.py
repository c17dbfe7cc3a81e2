"""Bring public weights into a model: every key accounted for, or nothing is changed.

A source's keys are translated, what it states of its model is compared, and a report says what
became of every key.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pixclip.config import ModelConfig
from pixclip.importers.formats import FORMATS, find_format
from pixclip.importers.rules import Facts, Format, Use, matcher, target_name
from pixclip.importers.source import Source, WeightsRefused, read_settings, read_source
from pixclip.json_files import brief

if TYPE_CHECKING:
    from pixclip.model import PixClip

OWN_PARTS = ("vision.", "adaptor.", "logit_scale")  # of our checkpoints' keys


@dataclass(frozen=True)
class UsedKey:
    """A key of the source that is in the model now."""

    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str


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


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Every key of the source and every tensor of the model, each exactly once."""

    format: str
    file: str
    sha256: str
    used: tuple[UsedKey, ...]
    dropped: tuple[DroppedKey, ...]
    new: tuple[NewTensor, ...]
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
    model: "PixClip", path: Path, format_name: str, *, new_projection: bool = False
) -> ImportReport:
    """Fill a model with public weights and report what became of every key.

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


POOLING = "tok"  # open_clip's word: our towers embed the state of the class token
# Where the two public descriptions have the sizes of their tower.
SIZES = {
    "width": ("width", "hidden_size"),
    "num_layers": ("layers", "num_hidden_layers"),
    "patch_size_px": ("patch_size",),
    "image_size_px": ("image_size",),
}


def compare_facts(format_: Format, path: Path, config: ModelConfig) -> tuple[list[str], list[str]]:
    """Contradictions between a source and our configuration, and what is taken on trust.

    A description beside the weights counts whatever the format: files of one project are often
    taken in the format of another, whose own facts they do not have.

    Raises:
        WeightsRefused: the format's own description cannot be read.
    """
    problems: list[str] = []
    assumed: list[str] = []
    kind = config.vision.kind
    if format_.kind != kind:
        problems.append(f"architecture: '{format_.name}' is for {format_.kind}, not {kind}")
    descriptions = {name: read_settings(path, name) for name in format_.settings_files}
    try:
        facts = format_.facts(descriptions, config.vision)
    except ValueError as error:
        return [*problems, f"{' or '.join(descriptions)}: {error}"], assumed
    problems += _differences(facts, config, "the source has")
    if not any(descriptions.values()):
        for name, other in _others(format_, path, config):
            problems += _differences(other, config, f"{name} beside the weights has")
    for name, value in asdict(facts).items():
        if value is None and not (name == "rope_grid" and kind == "clip"):
            setting, ours = _our_setting(name, config)
            assumed.append(f"{setting}={ours}: the source does not tell")
    return problems, assumed


def _differences(facts: Facts, config: ModelConfig, who: str) -> Iterator[str]:
    for name, value in asdict(facts).items():
        setting, ours = _our_setting(name, config)
        if value is not None and value != ours:
            yield f"setting: {who} {name}={brief(value)}, {setting} is {ours}"


def _others(format_: Format, path: Path, config: ModelConfig) -> Iterator[tuple[str, Facts]]:
    """What descriptions of other formats say, if they are of a tower of our sizes."""
    for other in FORMATS.values():
        is_new = other is not format_ and other.kind == format_.kind and other.settings_files
        if not is_new:
            continue
        try:
            descriptions = {name: read_settings(path, name) for name in other.settings_files}
            if _is_of_our_sizes(descriptions[other.settings_files[0]], config):
                yield other.settings_files[0], other.facts(descriptions, config.vision)
        except ValueError:  # another format's file: it is not asked for
            continue


def _is_of_our_sizes(description: Mapping[str, Any], config: ModelConfig) -> bool:
    sections: list[Any] = [description.get("vision_config"), description.get("model_cfg")]
    inner = [section.get("vision_cfg") for section in sections if isinstance(section, Mapping)]
    tower = next((one for one in [*inner, *sections] if isinstance(one, Mapping)), {})
    found = {ours: tower[name] for ours, names in SIZES.items() for name in names if name in tower}
    return bool(found) and all(getattr(config.vision, name) == size for name, size in found.items())


def _our_setting(fact: str, config: ModelConfig) -> tuple[str, object]:
    """Where our configuration has what a fact is about, and its value there."""
    if fact == "pooling":
        return "the tower's pooling", POOLING
    if fact in ("mean", "std"):
        return f"preprocess.{fact}", getattr(config.preprocess, fact)
    return f"vision.{fact}", getattr(config.vision, fact)


MASK, ADAPTOR, PROJECTION, SCALE = (
    "vision.mask_embed.",
    "adaptor.",
    "vision.projection.",
    "logit_scale",
)


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
