"""What recipes are made of: losses, stages, and a model with its stages. Without torch."""

from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import Field, Strict, model_validator

from pixclip.config import ARCHITECTURES, AdaptorConfig, ClipTextConfig, Config
from pixclip.data.config import MOST, DataConfig, PartDataConfig, ReadConfig
from pixclip.training.schedule import BelowOne, NotNegative, OptimizerConfig, Part

LN_100 = 4.605170185988092  # see docs/decisions/0006-logit-scale.md
MOST_STEPS = 10**12


class LossConfig(Config):
    """The total loss (eq. 7) and how its open points are read.

    Full-image samples belong to L_CL only: their crop is the image itself, and their pooled
    patches are its mean, so both other branches would ask the model to copy itself.
    """

    alpha: NotNegative = 0.25  # weight of L_FC (eq. 4); 0 leaves the crop branch out
    beta: NotNegative = 0.25  # weight of L_LG (eq. 6); 0 leaves the dense branch out
    # Weight of the cross entropy of a region's short caption among its wrong ones; FG-CLIP has 0.5.
    hard: NotNegative = 0.0
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


class PartLossConfig(Config):
    """The total loss of PA-CLIP (its eq. 1 and 2) and how its open points are read.

    A weight of 0 leaves a loss out, and what it alone needs is not encoded: any subset of short,
    long and part captions can be trained (the paper's Table 3).
    """

    short: NotNegative = 1.0  # weight of the short captions of whole images
    long: NotNegative = 1.0  # weight of the long ones
    # Weight of L_part. The paper does not give its alpha; as much as either caption, since its
    # ablation finds parts alone better than long or short alone. FG-CLIP's loss of boxes has 0.1.
    alpha: NotNegative = 1.0
    # Weight of the cross entropy of a part's short caption among its wrong ones; FG-CLIP has 0.5.
    hard: NotNegative = 0.0
    # A crop alone and its caption are told apart more easily, or less, than whole images are: a
    # scale of its own, as in FG-CLIP. It is no part of the model, whose own scale is for images.
    part_temperature: Literal["own", "shared"] = "own"
    # Another sample with the very same text is not a wrong answer.
    same_text: Literal["ignore", "negative"] = "ignore"
    # Nor is the other side's part of the same image: what is true of the left eye is mostly true
    # of the right one, and the paper's loss would call it wrong.
    mirrored_parts: Literal["ignore", "negative"] = "ignore"
    label_smoothing: BelowOne = 0.0
    # Rows of the similarity matrix in memory at a time.
    chunk_size: int = Field(1024, ge=1)


class AnyStage(Config):
    """One part of a training run, from a checkpoint to a checkpoint."""

    name: str
    data: ReadConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    num_epochs: int = Field(1, ge=1, le=MOST)
    # Ends the stage earlier or later than its epochs; 0 is epochs.
    num_steps: int = Field(0, ge=0, le=MOST_STEPS)
    # The other parts stay as they are.
    trainable: Annotated[tuple[Part, ...], Strict(False)]
    precision: Literal["fp32", "bf16"] = "bf16"  # of matrix products; weights are always fp32
    gradient_checkpointing: bool = False  # less memory for a third more time

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if not self.trainable:
            raise ValueError(f"stage {self.name}: trainable must name a part of the model")
        return self


class Stage(AnyStage):
    """A stage of PixCLIP: regions and their texts, which a frozen language model has embedded."""

    losses: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    trainable: Annotated[
        tuple[Literal["mask", "vision", "adaptor", "logit_scale"], ...], Strict(False)
    ] = ("mask", "vision")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if bool(self.losses.alpha) != self.data.needs_crops:
            raise ValueError(
                f"stage {self.name}: data.needs_crops={self.data.needs_crops} does not fit "
                f"losses.alpha={self.losses.alpha}; crops are for L_FC, so change both"
            )
        if bool(self.losses.hard) != bool(self.data.hard_negatives):
            raise ValueError(
                f"stage {self.name}: losses.hard={self.losses.hard} does not fit "
                f"data.hard_negatives={self.data.hard_negatives}; wrong captions are for this "
                "loss, so change both"
            )
        return self


class PartStage(AnyStage):
    """A stage of PA-CLIP: images with their captions and parts; the text tower may train."""

    losses: PartLossConfig = PartLossConfig()
    data: PartDataConfig = PartDataConfig()
    trainable: Annotated[
        tuple[Literal["mask", "vision", "text", "logit_scale"], ...], Strict(False)
    ] = ("vision", "text", "logit_scale")

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        losses, data = self.losses, self.data
        if not (losses.short or losses.long or losses.alpha):
            raise ValueError(f"stage {self.name}: one of losses.short, long and alpha must be > 0")
        if bool(losses.alpha) != bool(data.parts_per_image):
            raise ValueError(
                f"stage {self.name}: data.parts_per_image={data.parts_per_image} does not fit "
                f"losses.alpha={losses.alpha}; parts are for L_part, so change both"
            )
        if bool(losses.hard) != bool(data.hard_negatives) or (losses.hard and not losses.alpha):
            raise ValueError(
                f"stage {self.name}: losses.hard={losses.hard} needs data.hard_negatives, and "
                "wrong captions need losses.hard and parts; change them together"
            )
        return self


StageT = TypeVar("StageT", bound=AnyStage)
# Stretched as in Long-CLIP: rows that short texts have trained well stay as they are.
LONG_TEXT = ClipTextConfig(context_length=248, num_fixed_positions=20)


class AnyRecipe(Config, Generic[StageT]):
    """A model and how it is trained, stage by stage."""

    name: str
    architecture: str  # one of pixclip.config.ARCHITECTURES
    embed_dim: int  # width of the space that images and texts share
    logit_scale: float = LN_100  # natural logarithm of the factor of cosines
    stages: tuple[StageT, ...] = ()

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


class Recipe(AnyRecipe[Stage]):
    """PixCLIP: a language model reads texts, an adaptor brings them into the shared space."""

    adaptor: AdaptorConfig = AdaptorConfig()


class PartRecipe(AnyRecipe[PartStage]):
    """PA-CLIP: CLIP's own towers, the text tower's positions stretched for long captions."""

    text: ClipTextConfig = LONG_TEXT
