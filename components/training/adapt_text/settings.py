"""The settings of adapt_text. Their defaults suit a language model of 135 M parameters on a CPU;
`docs/text-tower.md` gives those of LLM2Vec and LLM2CLIP for 1 to 8 B parameters on GPUs.
"""

from typing import Literal

from pydantic import Field, model_validator

from components.core.step import StepSettings, place, runtime
from pixclip.text.adapt_job import (
    Contrast,
    Lora,
    MaskedTokens,
    TextFormat,
    Whiten,
    require_two_views,
)


class AdaptTextSettings(StepSettings):
    """Which language model, and how it becomes an encoder."""

    base_model: str = place(
        ".cache/models/smollm2-135m-instruct",
        "folder, or name on the Hugging Face Hub, of a causal model (safetensors)",
        on_hub=True,
    )
    revision: str = Field("main", description="commit of the model; pin one for a real tower")
    num_layers: int = Field(
        0,
        ge=0,
        description="lowest layers of the model that are kept, for speed; 0 keeps all",
    )
    text: TextFormat = TextFormat()
    masked_tokens: MaskedTokens = MaskedTokens()
    contrast: Contrast = Contrast()
    lora: Lora = Lora()
    whiten: Whiten = Whiten()
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
    num_ranks: int = runtime(1, "processes that train together, one a GPU", ge=1)
    device: str = runtime("auto", "where retrieval is measured; auto takes the first GPU if any")
    save_every_s: float = runtime(300.0, "seconds between states that a killed run resumes from")
    tracking_uri: str = runtime("", "MLflow server; empty: MLFLOW_TRACKING_URI, or runs/mlflow/")
    experiment: str = runtime("pixclip", "MLflow experiment")

    @model_validator(mode="after")
    def _views_differ(self) -> "AdaptTextSettings":
        # Told now, not after the base model was measured.
        require_two_views(self.contrast, self.lora)
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
