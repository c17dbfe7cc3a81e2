"""Outcomes in the order of the input rows, however they arrive, and the ledger of the costs."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from components.core.counts import quarantine_row, region_counts, write_quarantine
from components.core.step import Metrics
from components.core.tables import PARTS, Row, part_name, write_rows
from components.data.describe.scenes import Description, Outcome, Provenance, Rejection, Usage
from data_contracts.captions import SCHEMA

ROWS_PER_PART = 4096


class OutcomeWriter(ABC):
    """Collects the outcomes of scenes in any order; part files follow the order of the input."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self._schema = folder, schema
        self._waiting: dict[int, list[tuple[Row, Outcome]]] = {}
        self._next_scene = self._num_parts = 0
        self._accepted: list[Row] = []
        self.num_accepted = 0
        self.reasons: Counter[str] = Counter()  # of regions that are dropped
        self.usage = Usage()
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(PARTS):
            stale.unlink()

    def add(self, scene: int, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of the scene with that number; every row has one."""
        by_region = {outcome.region_id: outcome for outcome in outcomes}
        assert len(by_region) == len(rows), (
            f"scene {scene}: {len(rows)} rows, {len(outcomes)} outcomes"
        )
        self._waiting[scene] = [(row, by_region[row["region_id"]]) for row in rows]
        while self._next_scene in self._waiting:
            for row, outcome in self._waiting.pop(self._next_scene):
                self._take(row, outcome)
            self._next_scene += 1

    def finish(self) -> None:
        """Write what is left."""
        assert not self._waiting, f"scenes {sorted(self._waiting)} came without those before them"
        if self._accepted or not self._num_parts:
            self._write_part()

    @abstractmethod
    def metrics(self) -> Metrics:
        """Counts of what was done; the same for the same answers."""

    def told(self) -> Mapping[str, object]:
        """What the ledger says besides."""
        return {}

    @abstractmethod
    def _take(self, row: Row, outcome: Outcome) -> None:
        """Count an outcome, and keep its row or drop it."""

    def _keep(self, row: Row) -> None:
        self.num_accepted += 1
        self._accepted.append(row)
        if len(self._accepted) == ROWS_PER_PART:
            self._write_part()

    def _write_part(self) -> None:
        path = self.folder / part_name(self._num_parts)
        write_rows(path, self._accepted, self._schema)
        self._num_parts += 1
        self._accepted = []


class DescriptionWriter(OutcomeWriter):
    """Descriptions become captions; rejected regions go to the quarantine."""

    def __init__(self, captions: Path, quarantine: Path, step: str) -> None:
        super().__init__(captions, SCHEMA)
        self._quarantine_path, self._step = quarantine, step
        self._quarantined: list[Row] = []
        self._num_long_words = 0

    def finish(self) -> None:
        """Write what is left, and the quarantine."""
        super().finish()
        write_quarantine(self._quarantine_path, self._quarantined)

    def metrics(self) -> Metrics:
        """Counts of what was done; the same for the same answers."""
        num_rejected = self.reasons.total()
        return region_counts(
            self.num_accepted + num_rejected,
            self.num_accepted,
            self.reasons,
            num_requests=self.usage.num_requests,
            prompt_tokens=self.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens,
            cost_usd=round(self.usage.cost_usd, 9),
            words_per_long_caption=round(self._num_long_words / max(self.num_accepted, 1), 3),
        )

    def _take(self, row: Row, outcome: Outcome) -> None:
        self.usage = add_usage(self.usage, outcome.usage)
        if isinstance(outcome, Rejection):
            self.reasons[outcome.reason] += 1
            self._quarantined.append(
                quarantine_row(self._step, row, outcome.reason, _detail(outcome))
            )
            return
        assert isinstance(outcome, Description)
        self._num_long_words += len(outcome.long_caption.split())
        self._keep({**row, **_caption_columns(outcome)})


def add_usage(first: Usage, second: Usage) -> Usage:
    """The sum of two usages."""
    return Usage(
        first.num_requests + second.num_requests,
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
        first.seconds + second.seconds,
        first.cost_usd + second.cost_usd,
    )


def provenance_of(provenance: Mapping[str, Provenance]) -> dict[str, dict[str, str]]:
    """Who said what, for JSON."""
    return {stage: asdict(source) for stage, source in provenance.items()}


def _detail(rejection: Rejection) -> str:
    return f"{rejection.stage}: {rejection.detail}" if rejection.detail else rejection.stage


def _caption_columns(description: Description) -> Row:
    return {
        "object_caption": description.object_caption,
        "verdict": description.verdict,
        "verdict_reason": description.verdict_reason,
        "context_caption": description.context_caption,
        "long_caption": description.long_caption,
        "short_caption": description.short_caption,
        "provenance": json.dumps(
            provenance_of(description.provenance), sort_keys=True, ensure_ascii=False
        ),
        "prompt_tokens": description.usage.prompt_tokens,
        "completion_tokens": description.usage.completion_tokens,
        "cost_usd": round(description.usage.cost_usd, 9),
    }


LEDGER_LAYOUT = 1


# What describing cost: requests, tokens, seconds and dollars, by stage and per accepted region.
#
# Every answer that was used is counted, whether it was asked for in this run or found in the cache,
# so that a resumed run reports the same cost as one that was never killed.


@dataclass
class StageAccount:
    """What one stage took."""

    requests: int = 0
    cached: int = 0  # of the requests: answered by the cache of an earlier run
    repaired: int = 0  # of the requests: second tries after an answer that could not be used
    uncounted: int = 0  # of the requests: the server told no tokens, so the cost lacks them
    rejected: int = 0  # regions that were dropped at this stage
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # summed over requests, which overlap
    cost_usd: float = 0.0

    def count(self, usage: Usage, is_cached: bool, is_repair: bool) -> None:
        """Count one answer."""
        self.requests += usage.num_requests
        self.cached += is_cached
        self.repaired += is_repair
        self.uncounted += not usage.prompt_tokens
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.seconds += usage.seconds
        self.cost_usd += usage.cost_usd


@dataclass(frozen=True)
class Ledger:
    """The accounts of a run of `describe`."""

    describer: str
    num_accepted: int
    rejected: Counter[str]  # by reason
    total: Usage
    stages: Mapping[str, StageAccount]
    wall_seconds: float  # of this run
    told: Mapping[str, object]  # by the writer

    def write(self, path: Path) -> None:
        """Write the ledger as JSON."""
        total = _figures(self.total)
        per_accepted = {
            name: round(value / self.num_accepted, 9) if self.num_accepted else None
            for name, value in total.items()
        }
        content = {
            "layout": LEDGER_LAYOUT,
            "describer": self.describer,
            "regions_in": self.num_accepted + self.rejected.total(),
            "accepted": self.num_accepted,
            "rejected": self.rejected.total(),
            "rejected_by_reason": dict(sorted(self.rejected.items())),
            **self.told,
            "stages": {name: _rounded(asdict(stage)) for name, stage in self.stages.items()},
            "wall_seconds": round(self.wall_seconds, 3),
            "total": total,
            "per_accepted_region": per_accepted,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _figures(usage: Usage) -> dict[str, float]:
    figures = asdict(usage)
    return _rounded({"requests": figures.pop("num_requests"), **figures})


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {
        name: round(value, 9) if isinstance(value, float) else value
        for name, value in figures.items()
    }
