"""The settings of embed_text."""

from typing import Literal

from pydantic import Field

from components.core.step import StepSettings, runtime


class EmbedTextSettings(StepSettings):
    """How captions are embedded; what they become is the text tower's business."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the language model: auto is bf16 on a GPU and fp32 on a CPU"
    )
    captions_per_part: int = Field(
        32768, ge=1, description="captions in one file, about; a killed run loses at most one file"
    )
    num_ranks: int = runtime(
        1, "processes that share the captions, one a GPU; 1: the step's own", ge=1
    )
    device: str = runtime("auto", "where the model runs; auto takes a rank's GPU if there is one")
