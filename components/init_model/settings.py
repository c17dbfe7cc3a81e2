"""The settings of init_model."""

from typing import Literal

from pydantic import Field, model_validator

from components.kernel.step import StepSettings, place

# The formats of pixclip.importers, which imports PyTorch and so is not imported here.
Format = Literal[
    "",
    "openai",
    "open_clip",
    "huggingface",
    "eva_clip",
    "timm",
    "llm2clip",
    "alphaclip",
    "pixclip",
]


class InitModelSettings(StepSettings):
    """What the model is and where its weights are from."""

    recipe: str = Field("tiny", description="recipe whose model is made: the one of train.recipe")
    weights: str = place(
        "", description="file or folder of public weights; empty: weights drawn at random"
    )
    format: Format = Field(
        "",
        description=(
            "form of the weights: openai, open_clip, huggingface, eva_clip, timm, llm2clip, "
            "alphaclip or pixclip"
        ),
    )
    weights_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 that the weights' file must have; empty takes any",
    )
    new_projection: bool = Field(
        False,
        description="draw the projection anew, where the recipe's embed_dim is not the weights'",
    )
    crop_margin: float = Field(
        0.0,
        ge=0,
        description="room around a mask's box in its crop (I' of eq. 4), as a share of its sides",
    )
    seed: int = Field(0, description="seed of everything that is drawn at random")

    @model_validator(mode="after")
    def _weights_have_a_format(self) -> "InitModelSettings":
        if bool(self.weights) != bool(self.format):
            raise ValueError("weights and format go together: give both, or neither")
        if not self.weights and (self.new_projection or self.weights_sha256):
            raise ValueError("new_projection and weights_sha256 are for imported weights")
        return self
