"""The settings of `make_hard_negatives`: a section a stage, and what its result must be."""

from collections.abc import Mapping
from typing import ClassVar, Self, get_args

from pydantic import Field, model_validator

from components.core.counts import ROWS_IN
from components.core.errors import GateError
from components.core.step import threshold
from components.data.describe.hard_negatives.writer import NUM_WITHOUT, WITHOUT, without_of
from components.data.describe.scenes import MAX_CAPTIONS, Attribute
from components.data.describe.settings import EngineSettings
from components.data.llm.settings import PROMPT_PATTERN, StageSettings
from data_contracts.contrasted import MOST_NEGATIVES
from data_contracts.reasons import NegativeReason


# A class a stage, so that a params file that changes one setting keeps the others of its stage.
class ChangeStage(StageSettings):
    """Captions of which one attribute is changed, from the caption alone."""

    # FG-CLIP's.
    model: str = Field("meta-llama/Llama-3.1-70B-Instruct", description="a language model")
    prompt: str = Field("change.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(1024, ge=16, description="tokens an answer may have")


class VerifyChangeStage(StageSettings):
    """Which of the right caption and the changed ones, all together, fit the region."""

    model: str = Field(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct", description="a vision-language model"
    )
    prompt: str = Field("verify_change.v1.j2", pattern=PROMPT_PATTERN, description="prompt file")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(1024, ge=16, description="tokens an answer may have")


class HardNegativeSettings(EngineSettings):
    """Settings of `make_hard_negatives`."""

    step: ClassVar[str] = "make_hard_negatives"

    num_negatives: int = Field(
        3,
        ge=1,
        le=MOST_NEGATIVES,
        description="wrong captions of a region, at most; FG-CLIP has 10",
    )
    num_asked: int = Field(
        5, ge=1, le=MAX_CAPTIONS, description="of so many that a model is asked for"
    )
    attributes: tuple[Attribute, ...] = Field(
        get_args(Attribute),
        min_length=1,
        description="what may be changed; 'place' is where in the picture, which no crop shows",
    )
    min_contrasted_share: float = threshold(
        0.05,
        "share of the regions, whole images aside, with a wrong caption, below which the result is "
        "refused",
        ge=0,
        le=1,
    )
    change: ChangeStage = Field(ChangeStage(), description="captions with one attribute changed")
    verify_change: VerifyChangeStage = Field(
        VerifyChangeStage(), description="verification that they are wrong"
    )

    @property
    def prompt_facts(self) -> dict[str, object]:
        """What every prompt is told, whatever the region."""
        return {"num_asked": self.num_asked, "attributes": self.attributes}

    @model_validator(mode="after")
    def _asks_for_enough(self) -> Self:
        if self.num_asked < self.num_negatives:
            raise ValueError("num_asked must not be below num_negatives")
        return self


def require_contrasted_share(
    metrics: Mapping[str, int | float], settings: HardNegativeSettings
) -> None:
    """Refuse a result in which hardly a region has a wrong caption.

    Raises:
        GateError: fewer than the set share of the regions have one.
    """
    whole = metrics.get(without_of(NegativeReason.WHOLE_IMAGE), 0)
    num_regions = metrics[ROWS_IN] - whole
    num_contrasted = metrics[ROWS_IN] - metrics[NUM_WITHOUT]
    if num_contrasted < settings.min_contrasted_share * num_regions:
        reasons = {
            name.removeprefix(WITHOUT): int(count)
            for name, count in metrics.items()
            if name.startswith(WITHOUT)
        }
        raise GateError(
            f"{settings.step}: only {num_contrasted} of {num_regions} regions have a wrong "
            f"caption, less than the share of {settings.min_contrasted_share}",
            reasons,
            "Look at _left_out.jsonl in the draft; check models and prompts, or lower "
            f"{settings.step}.min_contrasted_share: no answer is asked for again.",
        )
