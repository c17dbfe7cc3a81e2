"""The policy and its settings: checks of a candidate, alone and against the champion.

Pure: folders in, checks out.

A candidate that fails a check is no error: the report says which and why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from components.core.step import StepSettings, runtime
from components.registry.models import ROLLED_BACK_TAG, Version
from pixclip.evaluation.protocol import LONGGRIT_REGIONS, PROTOCOLS, SCENE_ACCURACY, Question


@dataclass(frozen=True)
class Check:
    """One question of the policy and its answer."""

    name: str
    value: str
    limit: str
    passed: bool
    explanation: str


class PromoteSettings(StepSettings):
    """What a candidate must be to become the champion."""

    protocol: str = Field(
        LONGGRIT_REGIONS.id, description="protocol by which the candidate must be measured"
    )
    min_samples: int = Field(
        100, ge=1, description="questions behind each metric of this policy, at least"
    )
    minimums: dict[str, float] = Field(
        {SCENE_ACCURACY: 0.4},
        description="smallest value of a metric, by name; of a subset: seen_objects.scene_accuracy",
    )
    must_beat: str = Field(
        SCENE_ACCURACY,
        description="metric in which the candidate must be better than the champion; empty: none",
    )
    must_not_lose: list[str] = Field(
        [SCENE_ACCURACY, Question.MASK_TO_TEXT.recall_at(1), Question.TEXT_TO_MASK.recall_at(1)],
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

    @field_validator("protocol")
    @classmethod
    def _protocol_is_known(cls, protocol: str) -> str:
        if protocol not in PROTOCOLS:
            raise ValueError(f"no protocol '{protocol}'; known are {', '.join(PROTOCOLS)}")
        return protocol

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


def check_candidate(
    evaluation: Path,
    champion_evaluation: Path | None,
    taken_back: Version | None,
    settings: PromoteSettings,
) -> list[Check]:
    """All checks, in order; those against the champion only if there is one.

    Args:
        evaluation: folder with the candidate's `evaluation.json` and samples.
        champion_evaluation: the same of the champion; None if there is no champion yet.
        taken_back: the version with the candidate's weights that was rolled back, if there is one.

    Raises:
        EvaluationError: the candidate's evaluation cannot be read.
    """
    from pixclip.evaluation.compare import read_evaluation

    content = read_evaluation(evaluation)
    checks = [
        _not_rolled_back(taken_back),
        _protocol(content, settings),
        _num_samples(content, settings),
        *(_minimum(content, name, limit) for name, limit in settings.minimums.items()),
    ]
    if champion_evaluation is not None:
        checks += _against(champion_evaluation, evaluation, settings)
    return checks


def _not_rolled_back(taken_back: Version | None) -> Check:
    value = "no"
    if taken_back:
        value = f"rolled back as version {taken_back.number}: {taken_back.tags[ROLLED_BACK_TAG]}"
    return Check(
        name="was not rolled back",
        value=value,
        limit="no",
        passed=taken_back is None,
        explanation="Weights that people took back do not return by themselves; remove that "
        f"version's tag `{ROLLED_BACK_TAG}` in the registry to allow it.",
    )


def _protocol(content: dict[str, Any], settings: PromoteSettings) -> Check:
    protocol = str(content.get("protocol"))
    known = PROTOCOLS[settings.protocol]
    is_same = content["protocol_digest"] == known.digest
    return Check(
        name="protocol",
        value=protocol if is_same else f"{protocol}, but another definition or split",
        limit=settings.protocol,
        passed=protocol == settings.protocol and is_same,
        explanation=f"Only numbers of this protocol decide, on its own split ({known.split}).",
    )


def _num_samples(content: dict[str, Any], settings: PromoteSettings) -> Check:
    deciding = dict.fromkeys([*settings.minimums, settings.must_beat, *settings.must_not_lose])
    asked = {name: _num_asked(content, name) for name in deciding if name}
    asked["regions"] = int(content["data"]["num_regions"])
    fewest = min(asked, key=lambda name: asked[name])
    return Check(
        name="number of samples",
        value=f"{asked[fewest]} ({fewest})",
        limit=f"at least {settings.min_samples}",
        passed=asked[fewest] >= settings.min_samples,
        explanation="Fewer questions than this say too little; of the metrics that decide, the one "
        "with the fewest is shown. An image with a single region asks none of scene_accuracy.",
    )


def _num_asked(content: dict[str, Any], name: str) -> int:
    return int(_of_metric(content["num_samples"], name) or 0)


def _of_metric(table: dict[str, dict[str, Any]], name: str) -> Any:
    """What a table by subset and metric has for a name such as `seen_objects.scene_accuracy`."""
    subset, _, metric = name.rpartition(".")
    return table.get(subset or "all", {}).get(metric)


def _minimum(content: dict[str, Any], name: str, limit: float) -> Check:
    value = _of_metric(content["metrics"], name)
    return Check(
        name=f"{name}: minimum",
        value="not measured" if value is None else f"{value:.4f}",
        limit=f"at least {limit:.4f}",
        passed=value is not None and value >= limit,
        explanation="Below this a model is of no use, whatever the champion does.",
    )


def _against(champion: Path, candidate: Path, settings: PromoteSettings) -> Iterator[Check]:
    from pixclip.evaluation.compare import compare
    from pixclip.evaluation.protocol import EvaluationError

    names = dict.fromkeys([settings.must_beat, *settings.must_not_lose])
    try:
        found = {name: compare(champion, candidate, name) for name in names if name}
    except EvaluationError as error:
        yield Check(
            name="comparable with the champion",
            value="no",
            limit="yes, unless allow_incomparable",
            # Not to be allowed: a metric that nobody asked, or damaged samples.
            passed=settings.allow_incomparable and _asked_otherwise(champion, candidate),
            explanation=f"{error}.",
        )
        return
    for name in settings.must_not_lose:
        yield _not_worse(name, found[name], settings.max_regression)
    if settings.must_beat:
        yield _better(settings.must_beat, found[settings.must_beat])


def _asked_otherwise(champion: Path, candidate: Path) -> bool:
    """Whether the two were measured on other samples or by another protocol."""
    from pixclip.evaluation.compare import read_evaluation

    old, new = read_evaluation(champion), read_evaluation(candidate)
    is_same_data = old["data"]["dataset"] == new["data"]["dataset"]
    return not (is_same_data and old["protocol_digest"] == new["protocol_digest"])


def _not_worse(name: str, difference: Any, max_regression: float) -> Check:
    return Check(
        name=f"{name}: not worse than the champion",
        value=_shown(difference),
        limit=f"interval not wholly below {0 - max_regression:+.4f}",
        passed=difference.high >= -max_regression,
        explanation=f"Candidate minus champion on the same {difference.num_samples} questions, "
        "with the 95 % interval of a paired bootstrap over images.",
    )


def _better(name: str, difference: Any) -> Check:
    return Check(
        name=f"{name}: better than the champion",
        value=_shown(difference),
        limit="more than +0.0000",
        passed=difference.difference > 0,
        explanation="An equal model is no reason to change.",
    )


def _shown(difference: Any) -> str:
    return f"{difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
