"""The settings of both describers: a section a stage, with the models of the papers."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.step import runtime, threshold
from components.data.describe.scenes import WordLimits
from components.data.llm.settings import (
    PROMPT_PATTERN,
    ClientSettings,
    Prompts,
    StageName,
    StageSettings,
)
from data_contracts.captions import ASKED_LONG, ASKED_SHORT, LONG, SHORT

PROMPT_SETTINGS = ("min_long_words", "max_long_words", "min_short_words", "max_short_words")


class EngineSettings(ClientSettings):
    """Base of the settings of a step that asks about regions; each stage is a section."""

    step: ClassVar[str]

    describer: Literal["embedded", "endpoints"] = Field(
        "embedded", description="rules over what is measured, or the models behind the endpoints"
    )
    cache_folder: str = runtime(
        "", "folder where answers are kept for good; empty: the folder 'answers' beside the ledger"
    )
    max_image_memory_mb: int = runtime(1024, "megabytes of decoded images in flight", ge=1)

    @property
    def stages(self) -> dict[StageName, StageSettings]:
        """The stages in their order."""
        return {name: value for name, value in self if isinstance(value, StageSettings)}

    @property
    def word_limits(self) -> WordLimits:
        """How long the captions may be."""
        return WordLimits(*LONG, *SHORT)

    @property
    def prompt_facts(self) -> dict[str, object]:
        """What every prompt is told, whatever the region."""
        raise NotImplementedError

    @field_validator("cache_folder")
    @classmethod
    def _is_here(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError("a folder on this machine or one that is mounted here")
        return folder

    @model_validator(mode="after")
    def _has_endpoints(self) -> Self:
        if self.describer == "endpoints":
            missing = [
                f"{name}.endpoints" for name, stage in self.stages.items() if not stage.endpoints
            ]
            if missing:
                raise ValueError(
                    f"the describer 'endpoints' needs base URLs in {', '.join(missing)}"
                )
            if self.give_up_after_s <= self.request_timeout_s:
                raise ValueError("give_up_after_s must be above request_timeout_s")
        return self


class DescriberSettings(EngineSettings):
    """Base of the settings of a step that describes regions."""

    min_long_words: int = Field(
        ASKED_LONG.fewest,
        ge=LONG.fewest,
        le=LONG.most,
        description="words of a long caption, at least",
    )
    max_long_words: int = Field(
        ASKED_LONG.most,
        ge=LONG.fewest,
        le=LONG.most,
        description="words of a long caption, at most",
    )
    min_short_words: int = Field(
        ASKED_SHORT.fewest,
        ge=SHORT.fewest,
        le=SHORT.most,
        description="words of a short caption, at least",
    )
    max_short_words: int = Field(
        ASKED_SHORT.most,
        ge=SHORT.fewest,
        le=SHORT.most,
        description="words of a short caption, at most",
    )
    min_accepted_share: float = threshold(
        0.05, "share of regions below which the result is refused", ge=0, le=1
    )

    @property
    def word_limits(self) -> WordLimits:
        """How long the captions may be."""
        return WordLimits(
            self.min_long_words, self.max_long_words, self.min_short_words, self.max_short_words
        )

    @property
    def prompt_facts(self) -> dict[str, object]:
        """What every prompt is told, whatever the region."""
        return {name: getattr(self, name) for name in PROMPT_SETTINGS}

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        for kind in ("long", "short"):
            if getattr(self, f"min_{kind}_words") > getattr(self, f"max_{kind}_words"):
                raise ValueError(f"min_{kind}_words must not be above max_{kind}_words")
        return self


# A class a stage, so that a params file that changes one setting keeps the others of its stage.
class ObjectStage(StageSettings):
    """What the object looks like, from the crop and the mask alone."""

    model: str = Field("OpenGVLab/InternVL2-Llama3-76B", description="a vision-language model")
    prompt: str = Field("object.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")


class VerifyStage(StageSettings):
    """Whether the object caption holds against the image."""

    model: str = Field("Qwen/Qwen2-VL-72B-Instruct", description="a vision-language model")
    prompt: str = Field("verify.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(256, ge=16, description="tokens an answer may have")


class ContextStage(StageSettings):
    """Where the object is and how it relates to others, from the image and the box."""

    model: str = Field("Griffon-G-26B", description="a vision-language model")
    prompt: str = Field("context.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")


class MergeStage(StageSettings):
    """One long and one short caption out of the two."""

    model: str = Field("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", description="a language model")
    prompt: str = Field("merge.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.6, ge=0, le=2, description="sampling temperature")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus sampling: probability mass")
    max_tokens: int = Field(4096, ge=16, description="tokens an answer may have, thinking included")


class CheckStage(StageSettings):
    """Whether the merge kept the object and its location."""

    model: str = Field("Qwen/Qwen2-VL-72B-Instruct", description="a language model")
    prompt: str = Field("check.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(256, ge=16, description="tokens an answer may have")


class DescribeSettings(DescriberSettings):
    """Settings of `describe`."""

    step: ClassVar[str] = "describe"

    object: ObjectStage = Field(ObjectStage(), description="object caption")
    verify: VerifyStage = Field(VerifyStage(), description="verification of the object caption")
    context: ContextStage = Field(ContextStage(), description="context caption")
    merge: MergeStage = Field(MergeStage(), description="long and short caption")
    check: CheckStage = Field(CheckStage(), description="verification of the merge")


# The paper's two models: one describes, the other verifies, so that neither judges itself.
class PartStage(StageSettings):
    """What a part looks like and where on the object it is."""

    model: str = Field("google/gemma-3-27b-it", description="a vision-language model")
    prompt: str = Field("part.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    prompts: Prompts = Field(
        default={
            "bird": "part_bird.v1.j2",
            "car": "part_car.v1.j2",
            "aircraft": "part_aircraft.v1.j2",
        },
        description="prompt files of super-classes that have their own",
    )


class VerifyPartStage(StageSettings):
    """Whether the caption of a part holds against the image."""

    model: str = Field(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct", description="a vision-language model"
    )
    prompt: str = Field("verify_part.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(256, ge=16, description="tokens an answer may have")


class WholeStage(StageSettings):
    """A long and a short caption of the whole image."""

    model: str = Field("google/gemma-3-27b-it", description="a vision-language model")
    prompt: str = Field("whole.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")


class VerifyWholeStage(VerifyPartStage):
    """Whether the captions of the whole image hold."""

    prompt: str = Field("verify_whole.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")


class DescribePartsSettings(DescriberSettings):
    """Settings of `describe_parts`."""

    step: ClassVar[str] = "describe_parts"

    # A part has less to say than an object: the paper's examples have 15 words.
    min_long_words: int = Field(
        LONG.fewest, ge=LONG.fewest, le=LONG.most, description="words of a long caption, at least"
    )
    part: PartStage = Field(PartStage(), description="caption of a part")
    verify_part: VerifyPartStage = Field(
        VerifyPartStage(), description="verification of the caption of a part"
    )
    whole: WholeStage = Field(WholeStage(), description="captions of the whole image")
    verify_whole: VerifyWholeStage = Field(
        VerifyWholeStage(), description="verification of the captions of the whole image"
    )
