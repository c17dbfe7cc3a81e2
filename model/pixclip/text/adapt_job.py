"""What an adaptation is asked to do, as a JSON file. Without torch."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pixclip.config import Config

Precision = Literal["fp32", "bf16"]
STAGES = ("masked_tokens", "contrast")  # in order


class Section(Config, strict=False):
    """A part of the settings of `adapt_text`, which a file in YAML may give: 1e-4 is a text there.

    The defaults suit a language model of 135 M parameters on a CPU; `docs/text-tower.md` gives
    those of LLM2Vec and LLM2CLIP.
    """


class TextFormat(Section):
    """How captions are put to the model."""

    max_tokens: int = Field(
        512, ge=8, le=1_048_576, description="longest caption with its markers, in tokens"
    )
    prefix: str = Field("", description="text before every caption, e.g. Llama-3's chat markers")
    suffix: str = Field("", description="text after every caption")
    pooling: Literal["caption", "caption_and_end"] = Field(
        "caption",
        description="what a caption's vector is the mean of; LLM2CLIP's counts the end marker too",
    )
    tokens_per_pass: int = Field(
        128,
        ge=16,
        le=262_144,
        description="tokens in one forward pass; 8192 and more fill a GPU",
    )


class MaskedTokens(Section):
    """Masked next-token prediction."""

    num_steps: int = Field(6, ge=0, description="steps; 0 leaves the stage out")
    batch_size: int = Field(16, ge=1, description="captions of a step")
    lr: float = Field(3e-4, gt=0, description="peak learning rate")
    warmup_steps: int = Field(2, ge=0, description="steps until the peak")
    mask_share: float = Field(0.2, gt=0, lt=1, description="share of tokens that are hidden")
    # Causal models have no mask token; LLM2Vec takes this one.
    hide_behind: str = Field("_", description="token in place of hidden ones")


class Contrast(Section):
    """Contrast of captions."""

    kind: Literal["captions", "simcse"] = Field(
        "captions", description="short against long caption of a region, or a caption with itself"
    )
    num_steps: int = Field(10, ge=0, description="steps; 0 leaves the stage out")
    batch_size: int = Field(16, ge=2, description="pairs of a step: all are each other's negatives")
    lr: float = Field(5e-4, gt=0, description="peak learning rate")
    warmup_steps: int = Field(2, ge=0, description="steps until the peak")
    scale: float = Field(20.0, gt=0, description="factor of cosines in the loss")
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of attention weights dropped; 0.3 for simcse"
    )


class Lora(Section):
    """Low-rank adapters on every linear layer but the head."""

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, ge=1, description="their weight, in ranks")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before them")


class Whiten(Section):
    """Evening out of the finished tower's vectors, whose mean and few directions hold most."""

    share: float = Field(
        0.0, ge=0, le=1, description="1 makes all directions equally strong; 0 leaves them alone"
    )
    num_captions: int = Field(
        8192, ge=2, description="captions that mean and directions are measured on"
    )


def require_two_views(contrast: Contrast, lora: Lora) -> None:
    """Refuse SimCSE without any dropout: both views of a caption would be equal.

    Raises:
        ValueError: says what to set.
    """
    dropouts = contrast.attention_dropout, lora.dropout
    if contrast.kind == "simcse" and contrast.num_steps and not any(dropouts):
        raise ValueError(
            "contrast.kind=simcse contrasts a caption with itself, and without dropout both views "
            "are equal: set contrast.attention_dropout (LLM2Vec: 0.3), or at least lora.dropout, "
            "which tells them apart from the second step on"
        )


class AdaptJob(Config):
    """An adaptation; everything it makes is below `work`."""

    base_model: str  # folder or name on the Hugging Face Hub
    pairs: str  # Parquet file with the columns short_caption and long_caption
    work: str
    revision: str = "main"
    num_layers: int = Field(0, ge=0)  # lowest layers that are kept; 0 keeps all
    text: TextFormat = TextFormat()
    masked_tokens: MaskedTokens = MaskedTokens()
    contrast: Contrast = Contrast()
    lora: Lora = Lora()
    whiten: Whiten = Whiten()
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    seed: int = Field(0, ge=0)
    save_every_s: float = 300.0
    device: str = "auto"  # where whoever starts the ranks lets retrieval be measured

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        require_two_views(self.contrast, self.lora)
        return self

    @property
    def tower(self) -> Path:
        """Where the finished text tower is written, by rename."""
        return Path(self.work) / "tower"

    @property
    def tower_mark(self) -> Path:
        """Where the digest of the finished tower is, by which damage is found out."""
        return Path(self.work) / "tower.sha256"

    def stage_work(self, name: str) -> Path:
        """Where a stage's steps, states and finished adapters are."""
        return Path(self.work) / name
