"""What describing cost: requests, tokens, seconds and dollars, by stage and per accepted region.

Every answer that was used is counted, whether it was asked for in this run or found in the cache,
so that a resumed run tells the same cost as one that was never killed.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from components.describe.types import Usage

LEDGER_LAYOUT = 1


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
