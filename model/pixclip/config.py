"""What a model is made of: towers, adaptor, preprocessing; read from and written to `config.json`.

The configuration of a checkpoint is complete: nothing about the model is decided by an argument
elsewhere, so training and inference cannot differ.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationError,
    model_validator,
)

from pixclip.config_faults import fault_told

# OpenAI CLIP's pixel statistics (https://github.com/openai/CLIP), which EVA-CLIP uses too.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MOST_PATCHES = 65_536
MAX_TOLD = 5  # faults named in a message

Count = Annotated[int, Field(ge=1)]
Mean = Annotated[float, Field(ge=-1e6)]
Std = Annotated[float, Field(ge=1e-6)]  # it is divided by
Marker = Annotated[str, Field(max_length=65_536)]


class Config(BaseModel):
    """Base of all configurations: frozen; other names and other types are refused.

    Upper bounds are what no model has: a configuration of a few bytes could ask for more than any
    machine holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def changed(self, **changes: Any) -> Self:
        """A copy with other values, checked like a new one.

        Raises:
            ValueError: a value breaks a rule.
        """
        return type(self)(**(dict(self) | changes))


AnyConfig = TypeVar("AnyConfig", bound=Config)


class VisionConfig(Config):
    """A vision transformer with a mask patch embedding beside the image's (paper, eq. 1)."""

    kind: Literal["clip", "eva02"]
    image_size_px: Count = Field(le=4096)
    patch_size_px: Count = Field(le=256)
    width: Count = Field(le=16_384)
    num_layers: Count = Field(le=256)
    num_heads: Count = Field(le=1024)
    mlp_width: Count = Field(le=131_072)
    # Width of the embeddings that images and texts share.
    embed_dim: Count = Field(le=65_536)
    activation: Literal["quick_gelu", "gelu", "swiglu"] = "gelu"
    layer_norm_eps: float = Field(1e-5, ge=0)
    mask_bias: bool = False  # PixCLIP's released weights have one; ours need none
    # eva02: side of the patch grid that positions were pretrained on.
    rope_grid: Count = Field(16, le=1024)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
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
        return self

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
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
        return self

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return self.image_size_px // self.patch_size_px


class TextConfig(Config):
    """A causal language model read in both directions, mean-pooled (LLM2Vec)."""

    kind: Literal["language_model"] = "language_model"
    embed_dim: Count = Field(le=65_536)  # width of the language model
    max_tokens: Count = Field(512, le=1_048_576)
    prefix: Marker = ""  # text around every caption, e.g. the chat markers of Llama-3
    suffix: Marker = ""
    # Tokens of one forward pass, which is always filled up to it. Part of the model: rounding
    # depends on the shape of a pass.
    tokens_per_pass: Count = Field(512, le=262_144)
    # Tokens whose states are averaged: the caption's, or what follows it too (LLM2CLIP).
    pooling: Literal["caption", "caption_and_end"] = "caption"
    whitened: bool = False  # the tower holds a map that evens its vectors out


class ClipTextConfig(Config):
    """CLIP's own text transformer, whose weights are part of the model."""

    kind: Literal["clip"] = "clip"
    context_length: int = Field(77, ge=3, le=65_536)  # 248 in Long-CLIP and FG-CLIP
    vocab_size: int = Field(49_408, ge=3, le=16_777_216)
    width: Count = Field(512, le=16_384)
    num_heads: Count = Field(8, le=1024)
    num_layers: Count = Field(12, le=256)
    mlp_width: Count = Field(2048, le=131_072)
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = Field(1e-5, ge=0)
    # Its first place in a text is where the text is pooled.
    end_token_id: int = Field(49_407, ge=0)
    # First rows of the position table that never train: 20 in Long-CLIP and FG-CLIP.
    num_fixed_positions: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"text.width must be a multiple of num_heads={self.num_heads}, got {self.width}"
            )
        if self.end_token_id >= self.vocab_size:
            raise ValueError(
                f"text.end_token_id must be below vocab_size={self.vocab_size}, "
                f"got {self.end_token_id}"
            )
        if self.num_fixed_positions >= self.context_length:
            raise ValueError(
                f"text.num_fixed_positions must be below context_length={self.context_length}, "
                f"got {self.num_fixed_positions}"
            )
        return self


class AdaptorConfig(Config):
    """The residual adaptor between language model and shared space (paper, Table 9)."""

    num_layers: int = Field(4, ge=0, le=256)
    expansion: Count = Field(2, le=64)  # width inside a block, in widths of the language model


class PreprocessConfig(Config):
    """How pixels become tensors. Stored with the model; training and inference both obey it.

    What is not the default repeats how public models were measured (`PREPROCESS`): for inference
    alone, training refuses it.
    """

    # What of an image becomes the square: all of it; what is left of the sides after its shortest
    # one was resized (CLIP); the square in its middle, cut out first (AlphaCLIP).
    resize: Literal["squash", "shortest_side", "center_square"] = "squash"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    # By torch's or Pillow's filter of bytes, or of numbers that are not rounded; all antialias.
    resampler: Literal["torch", "pillow", "float"] = "torch"
    # The share of a pixel that lies inside the mask; or the mask's pixels interpolated.
    mask_resize: Literal["area", "bilinear"] = "area"
    mean: Annotated[tuple[Mean, Mean, Mean], Strict(False)] = CLIP_MEAN
    std: Annotated[tuple[Std, Std, Std], Strict(False)] = CLIP_STD
    mask_mean: Mean = 0.5  # AlphaCLIP's: inside becomes +1.92, outside -1.92
    mask_std: Std = 0.26
    # Around a mask's box for I', as a share of its sides.
    crop_margin: float = Field(0.0, ge=0, le=100)


# How public projects prepare images and masks: CLIP's own transform, AlphaCLIP's of ImageNet-S,
# PixCLIP's of objects in COCO.
PREPROCESS = {
    "clip": PreprocessConfig(resize="shortest_side", resampler="pillow"),
    "alphaclip": PreprocessConfig(
        resize="center_square", resampler="float", mask_resize="bilinear"
    ),
    "pixclip": PreprocessConfig(resampler="float", mask_resize="bilinear"),
}
TEXT_KINDS: dict[str, type[Config]] = {"language_model": TextConfig, "clip": ClipTextConfig}


def _text_kind(text: Any) -> Any:
    """Checkpoints made before there were two kinds name none."""
    if isinstance(text, Mapping):
        return text.get("kind", "language_model")
    return getattr(text, "kind", "language_model")


class ModelConfig(Config):
    """A whole model."""

    vision: VisionConfig
    text: Annotated[
        Annotated[TextConfig, Tag("language_model")] | Annotated[ClipTextConfig, Tag("clip")],
        Discriminator(_text_kind),
    ]
    # Of a language model; CLIP's text transformer has a projection of its own.
    adaptor: AdaptorConfig | None = AdaptorConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    name: str = ""  # what people call it, e.g. the recipe it was trained by

    @model_validator(mode="after")
    def _adaptor_fits(self) -> Self:
        if (self.adaptor is None) != (self.text.kind == "clip"):
            raise ValueError(
                "adaptor must be null for text.kind clip and for no other, "
                f"got {self.adaptor!r} for {self.text.kind}"
            )
        return self

    def require_language_model(self) -> TextConfig:
        """The settings of the language model that reads texts.

        Raises:
            ValueError: none does.
        """
        if isinstance(self.text, TextConfig):
            return self.text
        raise ValueError(
            f"the model '{self.name}' reads texts by CLIP's own text transformer (text.kind clip), "
            "not by a language model; take one that was made with text.kind language_model"
        )


def to_dict(config: Config) -> dict[str, Any]:
    """A configuration as plain data for JSON."""
    return config.model_dump()


def from_dict(kind: type[AnyConfig], data: Mapping[str, Any], path: str = "") -> AnyConfig:
    """The configuration `kind` made of plain data, strictly.

    Raises:
        ValueError: a name is unknown or missing, or a value has the wrong type or breaks a rule;
            names `section.field`, the rule and the value.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        told = dict.fromkeys(
            fault_told(kind, dict(item), path, TEXT_KINDS)
            for item in error.errors(include_url=False)
        )
        raise ValueError("; ".join(list(told)[:MAX_TOLD])) from None


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


def eva02_vit(
    width: int, num_layers: int, mlp_width: int, patch_px: int, image_px: int, dim: int
) -> VisionConfig:
    """A vision transformer of EVA02-CLIP (arXiv:2303.15389)."""
    return VisionConfig(
        kind="eva02",
        image_size_px=image_px,
        patch_size_px=patch_px,
        width=width,
        num_layers=num_layers,
        num_heads=width // 64,
        mlp_width=mlp_width,
        embed_dim=dim,
        activation="swiglu",
        layer_norm_eps=1e-6,
    )


# Architectures by name; `embed_dim` of a tower trained with an LLM is 1280 (LLM2CLIP).
ARCHITECTURES: dict[str, VisionConfig] = {
    "clip_vit_b16": clip_vit(768, 12, 16, 224, 512),
    "clip_vit_l14": clip_vit(1024, 24, 14, 224, 768),
    "clip_vit_l14_336": clip_vit(1024, 24, 14, 336, 768),
    "eva02_b16": eva02_vit(768, 12, 2048, 16, 224, 512),
    "eva02_l14": eva02_vit(1024, 24, 2730, 14, 224, 768),
    "eva02_l14_336": eva02_vit(1024, 24, 2730, 14, 336, 768),
    "tiny": VisionConfig(
        kind="clip",
        image_size_px=112,
        patch_size_px=16,
        width=192,
        num_layers=4,
        num_heads=3,
        mlp_width=768,
        embed_dim=256,
    ),
}


def clip_text_of(architecture: str) -> ClipTextConfig:
    """CLIP's own text tower beside a vision tower of `ARCHITECTURES`, 77 tokens of context."""
    vision = ARCHITECTURES[architecture]
    # The large models have 768 channels of text, the base models 512.
    width = {768: 512, 1024: 768}.get(vision.width, vision.width)
    return ClipTextConfig(
        width=width,
        num_heads=width // 64,
        num_layers=min(12, vision.num_layers),
        mlp_width=4 * width,
        activation="quick_gelu" if vision.activation == "quick_gelu" else "gelu",
    )
