"""The settings of `promote`: the policy."""

from pydantic import Field, field_validator

from components.kernel.step import StepSettings, runtime


class PromoteSettings(StepSettings):
    """What a candidate must be to become the champion."""

    protocol: str = Field(
        "longgrit-regions/1", description="protocol by which the candidate must be measured"
    )
    min_samples: int = Field(
        100, ge=1, description="questions behind each metric of this policy, at least"
    )
    minimums: dict[str, float] = Field(
        {"scene_accuracy": 0.4},
        description="smallest value of a metric, by name; of a subset: seen_objects.scene_accuracy",
    )
    must_beat: str = Field(
        "scene_accuracy",
        description="metric in which the candidate must be better than the champion; empty: none",
    )
    must_not_lose: list[str] = Field(
        ["scene_accuracy", "mask_to_text_r1", "text_to_mask_r1"],
        description="metrics that must not become worse than the champion's",
    )
    max_regression: float = Field(
        0.0,
        ge=0,
        le=1,
        description="loss in these metrics that is allowed; worse is a paired bootstrap interval "
        "(95 %) of the difference that lies wholly below it",
    )
    allow_incomparable: bool = Field(
        False,
        description="promote also if the champion was measured on other samples or by another "
        "protocol, so that nothing compares the two",
    )
    tracking_uri: str = Field(
        "",
        description="address of MLflow; empty: MLFLOW_TRACKING_URI, or a file below runs/mlflow",
    )
    reason: str = runtime("", "why, for the promotion log; empty: that the policy was met")
    fail_if_kept: bool = runtime(
        False, "end with an error if the champion stays; for schedulers that want one"
    )

    @field_validator("must_not_lose", "must_beat", "minimums")
    @classmethod
    def _names_are_known(cls, value: object) -> object:
        from pixclip.evaluation.metrics import METRICS

        names = [value] if isinstance(value, str) and value else value
        assert isinstance(names, (list, dict, str))
        for name in names:
            bare = name.rpartition(".")[2]
            if bare not in METRICS:
                raise ValueError(f"no metric '{name}'; the metrics are {', '.join(METRICS)}")
        return value
