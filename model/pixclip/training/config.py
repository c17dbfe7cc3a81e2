"""What training is made of: losses, optimiser, stages, recipes. Without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from pixclip.config import ARCHITECTURES, AdaptorConfig, Config
from pixclip.data.config import MOST, DataConfig

LN_100 = 4.605170185988092  # see docs/decisions/0006-logit-scale.md
MOST_STEPS = 10**12
Part = Literal["mask", "vision", "adaptor", "logit_scale"]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class LossConfig(Config):
    """The total loss (eq. 7) and how its open points are read.

    Full-image samples belong to L_CL only: their crop is the image itself, and their pooled
    patches are its mean, so both other branches would ask the model to copy itself.
    """

    alpha: NotNegative = 0.25  # weight of L_FC (eq. 4); 0 leaves the crop branch out
    beta: NotNegative = 0.25  # weight of L_LG (eq. 6); 0 leaves the dense branch out
    # What the crop's embedding v_c is matched with; the paper's t_c has no definition.
    # text: the region's text e_t. region: the region's own embedding e_v, against the batch.
    # region_positives: e_v again, but 1 - cosine of the matching pair alone.
    fc_target: Literal["text", "region", "region_positives"] = "text"
    # What the pooled patches f'_v are matched with (f_v of eq. 6): the region's embedding, as the
    # prose says ("mutually enhances the initial mask embedding"), or its text.
    lg_target: Literal["region", "text"] = "region"
    lg_stop_gradient: bool = False  # eq. 6 teaches only the patches, not the region's embedding
    coverage_threshold: BelowOne = 0.5  # tau of eq. 5: a patch belongs to a mask that covers more
    label_smoothing: BelowOne = 0.0  # AlphaCLIP's code has 0.1; the paper says nothing
    # Another sample with the very same text is not a wrong answer.
    same_text: Literal["ignore", "negative"] = "ignore"
    # Rows of the similarity matrix in memory at a time.
    chunk_size: int = Field(1024, ge=1)


class OptimizerConfig(Config):
    """AdamW, a linear warm-up, then a cosine down to zero at the last step (paper, Table 9)."""

    mask_lr: NotNegative = 1e-5  # the mask convolution, its bias included
    rest_lr: NotNegative = 1e-7  # everything else that is trained
    weight_decay: NotNegative = (
        1e-2  # of matrices and convolutions; norms, biases and scale have none
    )
    betas: Annotated[tuple[BelowOne, BelowOne], Strict(False)] = (0.9, 0.999)
    warmup_steps: int = Field(800, ge=0)
    max_grad_norm: NotNegative = 0.0  # gradients are scaled down to this norm; 0 never


class Stage(Config):
    """One part of a training run, from a checkpoint to a checkpoint."""

    name: str
    losses: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    num_epochs: int = Field(1, ge=1, le=MOST)
    # Ends the stage earlier or later than its epochs; 0 is epochs.
    num_steps: int = Field(0, ge=0, le=MOST_STEPS)
    # The other parts stay as they are.
    trainable: Annotated[tuple[Part, ...], Strict(False)] = ("mask", "vision")
    precision: Literal["fp32", "bf16"] = "bf16"  # of matrix products; weights are always fp32
    gradient_checkpointing: bool = False  # less memory for a third more time

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not self.trainable:
            raise ValueError(f"stage {self.name}: trainable must name a part of the model")
        if bool(self.losses.alpha) != self.data.needs_crops:
            raise ValueError(
                f"stage {self.name}: data.needs_crops={self.data.needs_crops} does not fit "
                f"losses.alpha={self.losses.alpha}; crops are for L_FC, so change both"
            )
        return self


class Recipe(Config):
    """A model and how it is trained, stage by stage."""

    name: str
    architecture: str  # one of pixclip.config.ARCHITECTURES
    embed_dim: int  # width of the space that images and texts share
    adaptor: AdaptorConfig = AdaptorConfig()
    logit_scale: float = LN_100  # natural logarithm of the factor of cosines
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"recipe {self.name}: no architecture '{self.architecture}'; "
                f"known are {', '.join(ARCHITECTURES)}"
            )
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"recipe {self.name}: stages need distinct names, got {names}")
        return self
