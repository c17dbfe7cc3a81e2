"""What a format of weights is: which key becomes which of ours, which are known and unneeded.

Names are patterns: `#` is a number, `&` is `weight` or `bias`, `*` is anything.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from pixclip.config import ModelConfig
from pixclip.text.clip_tower import KEPT_POSITIONS

Descriptions = Mapping[str, Mapping[str, Any]]  # JSON by file name, empty if it is not there
WILDCARDS = {"#": r"(\d+)", "&": r"(weight|bias)", "*": r".+"}


@dataclass(frozen=True)
class Use:
    """A key of the source that becomes a tensor of ours, or one of its equal parts by rows."""

    source: str
    target: str
    change: Callable[[Tensor], Tensor] = lambda tensor: tensor
    part: int = 0
    num_parts: int = 1


@dataclass(frozen=True)
class Drop:
    """Keys of the source that are known and not needed."""

    source: str
    reason: str


SCALE = "the temperature is a setting of the recipe"
SCALE_DROP = Drop("logit_scale", SCALE)
DESCRIPTION = "open_clip_config.json"


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """What a source says of CLIP's own text tower; None is not said."""

    activation: str | None = None
    num_heads: int | None = None
    layer_norm_eps: float | None = None
    end_token_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source says of its model beyond the shapes of its tensors; None is not said."""

    activation: str | None = None
    num_heads: int | None = None
    layer_norm_eps: float | None = None
    rope_grid: int | None = None
    image_size_px: Any = None  # a number, or what the source has instead
    pooling: str | None = None  # "tok": the class token's state is embedded
    mean: Any = None  # of the pixels; a tuple of three numbers, or what the source has instead
    std: Any = None
    text: TextFacts = TextFacts()
    # What it has that our towers cannot be told to have.
    misfits: tuple[str, ...] = ()
    text_misfits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """One public form of weights."""

    name: str
    description: str
    kind: Literal["clip", "eva02"]
    uses: tuple[Use, ...]
    drops: tuple[Drop, ...]
    # By the content of `settings_files` and our model; ValueError if they make no sense.
    facts: Callable[[Descriptions, ModelConfig], Facts]
    text_uses: tuple[Use, ...] = ()  # CLIP's own text tower, for a model that has one
    # Keys that no other project's files of the same form have.
    marks: tuple[str, ...] = ()
    settings_files: tuple[str, ...] = ()  # JSON beside the weights that describes the model
    has_mask: bool = False  # the mask convolution must be there
    has_adaptor: bool = False  # the text adaptor must be there
    mask_bias: bool = False  # its mask convolution has a bias: build the tower with one


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a description; empty where it is left out.

    Raises:
        ValueError: it is no section of settings.
    """
    found = settings.get(name, {})
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} must be a section of settings, got {found!r:.80}")
    return found


def as_stated(values: Any) -> Any:
    """Numbers of a description as our configuration has them, to be compared."""
    return tuple(values) if isinstance(values, list) else values


def unlike(section_name: str, settings: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """Settings of a description that differ from the only values our towers know."""
    return [
        f"{section_name}.{name}={settings[name]!r:.80}, only {value!r} is known here"
        for name, value in plain.items()
        if settings.get(name, value) != value
    ]


def matcher(pattern: str) -> re.Pattern[str]:
    """The regular expression of a name with wildcards."""
    pieces = re.split(r"([#&*])", pattern)
    return re.compile("".join(WILDCARDS.get(piece, re.escape(piece)) for piece in pieces))


def target_name(use: Use, match: re.Match[str]) -> str:
    """Our name for a key that matched: its wildcards filled in their order."""
    name = use.target
    for group in match.groups():
        name = re.sub("[#&]", group, name, count=1)
    return name


def transposed(matrix: Tensor) -> Tensor:
    """[in, out] to PyTorch's [out, in]; anything but a matrix stays, and its shape is refused."""
    return matrix.mT if matrix.ndim == 2 else matrix


def first_rows(table: Tensor) -> Tensor:
    """The rows of a position table that Long-CLIP and FG-CLIP keep apart, and keep."""
    return table[:KEPT_POSITIONS]


def further_rows(table: Tensor) -> Tensor:
    """The rows after `first_rows`."""
    return table[KEPT_POSITIONS:]


def without_batch(tensor: Tensor) -> Tensor:
    """[1, …, W] without its leading ones."""
    while tensor.ndim > 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor
