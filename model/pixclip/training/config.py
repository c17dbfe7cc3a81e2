"""What training is made of: losses, optimiser, stages, recipes. Without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pixclip.config import ARCHITECTURES, AdaptorConfig
from pixclip.data.config import MOST, DataConfig

LN_100 = 4.605170185988092  # see docs/decisions/0006-logit-scale.md
MOST_STEPS = 10**12
Part = Literal["mask", "vision", "adaptor", "logit_scale"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The total loss (eq. 7) and how its open points are read.

    Full-image samples belong to L_CL only: their crop is the image itself, and their pooled
    patches are its mean, so both other branches would ask the model to copy itself.
    """

    alpha: float = 0.25  # weight of L_FC (eq. 4); 0 leaves the crop branch out
    beta: float = 0.25  # weight of L_LG (eq. 6); 0 leaves the dense branch out
    # What the crop's embedding v_c is matched with; the paper's t_c has no definition.
    # text: the region's text e_t. region: the region's own embedding e_v, against the batch.
    # region_positives: e_v again, but 1 - cosine of the matching pair alone.
    fc_target: Literal["text", "region", "region_positives"] = "text"
    # What the pooled patches f'_v are matched with (f_v of eq. 6): the region's embedding, as the
    # prose says ("mutually enhances the initial mask embedding"), or its text.
    lg_target: Literal["region", "text"] = "region"
    lg_stop_gradient: bool = False  # eq. 6 teaches only the patches, not the region's embedding
    coverage_threshold: float = 0.5  # tau of eq. 5: a patch belongs to a mask that covers more
    label_smoothing: float = 0.0  # AlphaCLIP's code has 0.1; the paper says nothing
    # Another sample with the very same text is not a wrong answer.
    same_text: Literal["ignore", "negative"] = "ignore"
    chunk_size: int = 1024  # rows of the similarity matrix in memory at a time

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"losses.{name} must be finite and must not be negative, "
                    f"got {getattr(self, name)}"
                )
        for name in ("coverage_threshold", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"losses.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.chunk_size < 1:
            raise ValueError(f"losses.chunk_size must be at least 1, got {self.chunk_size}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, a linear warm-up, then a cosine down to zero at the last step (paper, Table 9)."""

    mask_lr: float = 1e-5  # the mask convolution, its bias included
    rest_lr: float = 1e-7  # everything else that is trained
    weight_decay: float = 1e-2  # of matrices and convolutions; norms, biases and scale have none
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 800
    max_grad_norm: float = 0.0  # gradients are scaled down to this norm; 0 never

    def __post_init__(self) -> None:
        for name in ("mask_lr", "rest_lr", "weight_decay", "warmup_steps", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"optimizer.{name} must be finite and must not be negative, "
                    f"got {getattr(self, name)}"
                )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training run, from a checkpoint to a checkpoint."""

    name: str
    losses: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_epochs: int = 1
    num_steps: int = 0  # ends the stage earlier or later than its epochs; 0 is epochs
    trainable: tuple[Part, ...] = ("mask", "vision")  # the other parts stay as they are
    precision: Literal["fp32", "bf16"] = "bf16"  # of matrix products; weights are always fp32
    gradient_checkpointing: bool = False  # less memory for a third more time

    def __post_init__(self) -> None:
        if self.num_epochs < 1 or self.num_steps < 0:
            raise ValueError(
                f"stage {self.name}: num_epochs must be at least 1 and num_steps at least 0, "
                f"got {self.num_epochs} and {self.num_steps}"
            )
        if self.num_epochs > MOST or self.num_steps > MOST_STEPS:
            raise ValueError(
                f"stage {self.name}: num_epochs must be at most {MOST} and num_steps at most "
                f"{MOST_STEPS}"
            )
        if not self.trainable:
            raise ValueError(f"stage {self.name}: trainable must name a part of the model")
        if bool(self.losses.alpha) != self.data.needs_crops:
            raise ValueError(
                f"stage {self.name}: data.needs_crops={self.data.needs_crops} does not fit "
                f"losses.alpha={self.losses.alpha}; crops are for L_FC, so change both"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and how it is trained, stage by stage."""

    name: str
    architecture: str  # one of pixclip.config.ARCHITECTURES
    embed_dim: int  # width of the space that images and texts share
    adaptor: AdaptorConfig = field(default_factory=AdaptorConfig)
    logit_scale: float = LN_100  # natural logarithm of the factor of cosines
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"recipe {self.name}: no architecture '{self.architecture}'; "
                f"known are {', '.join(ARCHITECTURES)}"
            )
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"recipe {self.name}: stages need distinct names, got {names}")
