"""The settings of adapt_text. Their defaults suit a language model of 135 M parameters on a CPU;
`docs/text-tower.md` gives those of LLM2Vec and LLM2CLIP for 1 to 8 B parameters on GPUs.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.kernel.step import StepSettings, place, runtime
from pixclip.config import MOST
from pixclip.text.adapt.job import Contrast, Lora, require_two_views


class Section(BaseModel):
    """Base of the sections below."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextSettings(Section):
    """How captions are put to the model."""

    max_tokens: int = Field(
        512, ge=8, le=MOST["max_tokens"], description="longest caption with its markers, in tokens"
    )
    prefix: str = Field("", description="text before every caption, e.g. Llama-3's chat markers")
    suffix: str = Field("", description="text after every caption")
    tokens_per_pass: int = Field(
        128,
        ge=16,
        le=MOST["tokens_per_pass"],
        description="tokens in one forward pass; 8192 and more fill a GPU",
    )


class MaskedTokensSettings(Section):
    """Masked next-token prediction."""

    num_steps: int = Field(6, ge=0, description="steps; 0 leaves the stage out")
    batch_size: int = Field(16, ge=1, description="captions of a step")
    lr: float = Field(3e-4, gt=0, description="peak learning rate")
    warmup_steps: int = Field(2, ge=0, description="steps until the peak")
    mask_share: float = Field(0.2, gt=0, lt=1, description="share of tokens that are hidden")
    hide_behind: str = Field("_", description="token in place of hidden ones")


class ContrastSettings(Section):
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


class LoraSettings(Section):
    """Low-rank adapters on every linear layer but the head."""

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, ge=1, description="their weight, in ranks")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before them")


class WhitenSettings(Section):
    """Evening out of the finished tower's vectors, whose mean and few directions hold most."""

    share: float = Field(
        0.0, ge=0, le=1, description="1 makes all directions equally strong; 0 leaves them alone"
    )
    num_captions: int = Field(
        8192, ge=2, description="captions that mean and directions are measured on"
    )


class AdaptTextSettings(StepSettings):
    """Which language model, and how it becomes an encoder."""

    base_model: str = place(
        ".cache/models/smollm2-135m-instruct",
        "folder, or name on the Hugging Face Hub, of a causal model (safetensors)",
    )
    revision: str = Field("main", description="commit of the model; pin one for a real tower")
    num_layers: int = Field(
        0,
        ge=0,
        description="lowest layers of the model that are kept, for speed; 0 keeps all",
    )
    text: TextSettings = TextSettings()
    masked_tokens: MaskedTokensSettings = MaskedTokensSettings()
    contrast: ContrastSettings = ContrastSettings()
    lora: LoraSettings = LoraSettings()
    whiten: WhitenSettings = WhitenSettings()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of matrix products in training; bf16 for GPUs"
    )
    gradient_checkpointing: bool = Field(
        False, description="save memory for a third more time in training"
    )
    max_pairs: int = Field(1_000_000, ge=1, description="most pairs of captions drawn to train on")
    num_eval_pairs: int = Field(
        1000, ge=0, description="pairs of the val split for the retrieval before and after"
    )
    seed: int = Field(0, ge=0, description="decides pairs, their order and what is hidden")
    num_ranks: int = runtime(1, "processes that train together on this machine, one a GPU", ge=1)
    device: str = runtime("auto", "where retrieval is measured; auto takes the first GPU if any")
    save_every_s: float = runtime(300.0, "seconds between states that a killed run resumes from")
    tracking_uri: str = runtime("", "MLflow server; empty: MLFLOW_TRACKING_URI, or runs/mlflow/")
    experiment: str = runtime("pixclip", "MLflow experiment")

    @model_validator(mode="after")
    def _views_differ(self) -> "AdaptTextSettings":
        # Told now, not after the base model was measured.
        contrast, lora = self.contrast.model_dump(), self.lora.model_dump()
        require_two_views(Contrast(**contrast), Lora(**lora))
        return self

    @model_validator(mode="after")
    def _batches_split_evenly(self) -> "AdaptTextSettings":
        for name in ("masked_tokens", "contrast"):
            batch_size = getattr(self, name).batch_size
            if batch_size % self.num_ranks:
                raise ValueError(
                    f"{name}.batch_size={batch_size} must be a multiple of num_ranks="
                    f"{self.num_ranks}"
                )
        return self
