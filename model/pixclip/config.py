"""What a model is made of: towers, adaptor, preprocessing; read from and written to `config.json`.

The configuration of a checkpoint is complete: nothing about the model is decided by an argument
elsewhere, so training and inference cannot differ.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pixclip.json_files import brief, shown

# OpenAI CLIP's pixel statistics (https://github.com/openai/CLIP), which EVA-CLIP uses too.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# What no model has: a configuration of a few bytes could ask for more than any machine holds.
MOST = {
    "image_size_px": 4096,
    "patch_size_px": 256,
    "width": 16_384,
    "num_layers": 256,
    "num_heads": 1024,
    "mlp_width": 131_072,
    "embed_dim": 65_536,
    "rope_grid": 1024,
    "max_tokens": 1_048_576,
    "tokens_per_pass": 262_144,  # every pass is filled up to it
    "expansion": 64,
    "crop_margin": 100,
}
MOST_WHOLE = 2**63
MOST_PATCHES, MOST_MARKER_CHARS = 65_536, 65_536


def _require(section: str, config: Any, names: tuple[str, ...], least: float) -> None:
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        if not all(least <= number < math.inf for number in values):
            raise ValueError(f"{section}.{name} must be at least {least}, got {shown(value)}")
        if max(values) > MOST.get(name, math.inf):
            raise ValueError(f"{section}.{name} must be at most {MOST[name]}, got {shown(value)}")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A vision transformer with a mask patch embedding beside the image's (paper, eq. 1)."""

    kind: Literal["clip", "eva02"]
    image_size_px: int
    patch_size_px: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    embed_dim: int  # width of the embeddings that images and texts share
    activation: Literal["quick_gelu", "gelu", "swiglu"] = "gelu"
    layer_norm_eps: float = 1e-5
    mask_bias: bool = False  # PixCLIP's released weights have one; ours need none
    rope_grid: int = 16  # eva02: side of the patch grid that positions were pretrained on

    def __post_init__(self) -> None:
        sides = ("image_size_px", "patch_size_px", "width", "num_layers", "num_heads", "mlp_width")
        _require("vision", self, (*sides, "embed_dim", "rope_grid"), 1)
        _require("vision", self, ("layer_norm_eps",), 0)
        if self.grid**2 > MOST_PATCHES:
            raise ValueError(
                f"vision.image_size_px={self.image_size_px} and patch_size_px={self.patch_size_px} "
                f"make {self.grid**2} patches of an image; at most {MOST_PATCHES} are taken"
            )
        if self.image_size_px % self.patch_size_px:
            raise ValueError(
                f"vision.image_size_px must be a multiple of patch_size_px={self.patch_size_px}, "
                f"got {self.image_size_px}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"vision.width must be a multiple of num_heads={self.num_heads}, got {self.width}"
            )
        if (self.kind == "eva02") != (self.activation == "swiglu"):
            raise ValueError(
                "vision.activation must be swiglu for kind eva02 and for no other, "
                f"got {self.activation} for {self.kind}"
            )
        if self.kind == "eva02" and self.width // self.num_heads % 4:
            raise ValueError(
                "vision.width / num_heads must be a multiple of 4 for kind eva02, whose heads hold "
                f"pairs of channels for rows and columns; got {self.width} / {self.num_heads}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return self.image_size_px // self.patch_size_px


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A causal language model read in both directions, mean-pooled (LLM2Vec)."""

    embed_dim: int  # width of the language model
    max_tokens: int = 512
    prefix: str = ""  # text around every caption, e.g. the chat markers of Llama-3
    suffix: str = ""
    # Tokens of one forward pass. Part of the model: rounding depends on the shape of a pass.
    tokens_per_pass: int = 512
    whitened: bool = False  # the tower holds a map that evens its vectors out

    def __post_init__(self) -> None:
        _require("text", self, ("embed_dim", "max_tokens", "tokens_per_pass"), 1)
        for name in ("prefix", "suffix"):
            if len(getattr(self, name)) > MOST_MARKER_CHARS:
                raise ValueError(
                    f"text.{name} must have at most {MOST_MARKER_CHARS} characters, "
                    f"got {len(getattr(self, name))}"
                )


@dataclass(frozen=True, kw_only=True)
class AdaptorConfig:
    """The residual adaptor between language model and shared space (paper, Table 9)."""

    num_layers: int = 4
    expansion: int = 2  # width inside a block, in widths of the language model

    def __post_init__(self) -> None:
        _require("adaptor", self, ("num_layers",), 0)
        _require("adaptor", self, ("expansion",), 1)


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How pixels become tensors. Stored with the model; training and inference both obey it."""

    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    mask_mean: float = 0.5  # AlphaCLIP's: inside becomes +1.92, outside -1.92
    mask_std: float = 0.26
    crop_margin: float = 0.0  # around a mask's box for I', as a share of its sides

    def __post_init__(self) -> None:
        _require("preprocess", self, ("mean", "mask_mean"), -1e6)
        _require("preprocess", self, ("std", "mask_std"), 1e-6)  # it is divided by
        _require("preprocess", self, ("crop_margin",), 0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model."""

    vision: VisionConfig
    text: TextConfig
    adaptor: AdaptorConfig = field(default_factory=AdaptorConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    name: str = ""  # what people call it, e.g. the recipe it was trained by


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain data for JSON."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Any], data: Mapping[str, Any], path: str = "") -> Any:
    """The configuration dataclass `kind` made of plain data, strictly.

    Raises:
        ValueError: a name is unknown or missing, or a value has the wrong type; tells which.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [str(name) for name in data if name not in fields]
    if unknown:
        raise ValueError(
            f"{path or kind.__name__}: unknown settings {brief(', '.join(sorted(unknown)))}; "
            f"known are {', '.join(fields)}"
        )
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in data]
    if missing:
        raise ValueError(f"{path or kind.__name__}: missing settings {', '.join(missing)}")
    values = {
        name: _convert(hints[name], value, f"{path}.{name}" if path else name)
        for name, value in data.items()
    }
    return kind(**values)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must be a section of settings, got {shown(value)}")
        return from_dict(hint, value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path)
    if origin is typing.Literal:
        if not any(value == known and type(value) is type(known) for known in arguments):
            raise ValueError(
                f"{path} must be one of {', '.join(map(str, arguments))}, got {brief(value)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} must be a list, got {shown(value)}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ValueError(f"{path} must have {len(kinds)} values, got {len(value)}")
        return tuple(_convert(k, v, path) for k, v in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MOST_WHOLE:  # a float holds no number of 400 digits
            raise ValueError(f"{path} must be a number below {MOST_WHOLE}, got {shown(value)}")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{path} must be of type {hint.__name__}, got {shown(value)}")
    return value


def clip_vit(width: int, num_layers: int, patch_px: int, image_px: int, dim: int) -> VisionConfig:
    """A vision transformer of OpenAI's CLIP."""
    return VisionConfig(
        kind="clip",
        image_size_px=image_px,
        patch_size_px=patch_px,
        width=width,
        num_layers=num_layers,
        num_heads=width // 64,
        mlp_width=4 * width,
        embed_dim=dim,
        activation="quick_gelu",
    )


# Architectures by name; `embed_dim` of a tower trained with an LLM is 1280 (LLM2CLIP).
ARCHITECTURES: dict[str, VisionConfig] = {
    "clip_vit_b16": clip_vit(768, 12, 16, 224, 512),
    "clip_vit_l14": clip_vit(1024, 24, 14, 224, 768),
    "clip_vit_l14_336": clip_vit(1024, 24, 14, 336, 768),
    "eva02_b16": VisionConfig(
        kind="eva02",
        image_size_px=224,
        patch_size_px=16,
        width=768,
        num_layers=12,
        num_heads=12,
        mlp_width=2048,
        embed_dim=512,
        activation="swiglu",
        layer_norm_eps=1e-6,
    ),
    "tiny": VisionConfig(
        kind="clip",
        image_size_px=112,
        patch_size_px=16,
        width=192,
        num_layers=6,
        num_heads=3,
        mlp_width=768,
        embed_dim=256,
    ),
}
