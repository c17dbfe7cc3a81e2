"""What the demonstration measured, as a table for people and as JSON for the test."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass
class StageReport:
    """One stage asked for every region over HTTP."""

    model: str
    requests: int = 0
    cut_off: int = 0  # answers that ran into the limit of tokens
    valid_json: int = 0  # answers that fit the stage's schema
    repaired: int = 0
    usable: int = 0  # regions whose answer also passed the gates
    prompt_tokens: int = 0
    completion_tokens: int = 0
    wall_seconds: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class StepReport:
    """One run of the step `describe`."""

    regions: int
    accepted: int
    reasons: dict[str, int]  # why regions went to the quarantine
    answers: int  # that the step used
    cached: int  # of these: found in the cache of an earlier run
    served: int  # requests that the servers counted during the run
    pictures: int  # that the servers' vision models got during the run
    prefix_hit_share: float  # of the prompts' tokens: found in the servers' prefix cache
    seconds: float


@dataclass(frozen=True)
class Report:
    """Everything that `run.py` tells."""

    servers: dict[str, str]  # model -> base URL; stopped by now
    start_seconds: float
    stages: dict[str, StageReport]
    first: StepReport
    second: StepReport
    total_seconds: float

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self, default=lambda value: value.__dict__, indent=1)
        path.write_text(content + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        """Print the report."""
        console.print(_stage_table(self.stages))
        console.print(_step_table({"first run": self.first, "second run": self.second}))
        console.print(
            f"servers up after {self.start_seconds:.0f} s, everything in {self.total_seconds:.0f} s"
        )


def _stage_table(stages: dict[str, StageReport]) -> Table:
    table = Table(title="Every stage asked for every region")
    for name in ("stage", "model", "requests", "cut off", "valid JSON", "repairs", "usable"):
        table.add_column(name)
    for name in ("tokens in/out", "tokens/s", "not usable because"):
        table.add_column(name)
    for name, stage in stages.items():
        table.add_row(
            name,
            stage.model,
            str(stage.requests),
            str(stage.cut_off),
            f"{stage.valid_json / max(stage.requests - stage.cut_off, 1):.0%} of whole",
            str(stage.repaired),
            str(stage.usable),
            f"{stage.prompt_tokens}/{stage.completion_tokens}",
            f"{stage.completion_tokens / max(stage.wall_seconds, 1e-9):.1f}",
            _counts(stage.problems),
        )
    return table


def _step_table(runs: dict[str, StepReport]) -> Table:
    table = Table(title="The step `describe`")
    for name in ("run", "regions", "accepted", "quarantined by reason", "answers", "from cache"):
        table.add_column(name)
    for name in ("requests at the servers", "pictures", "prefix cache", "seconds"):
        table.add_column(name)
    for name, run in runs.items():
        table.add_row(
            name,
            str(run.regions),
            str(run.accepted),
            _counts(Counter(run.reasons)),
            str(run.answers),
            str(run.cached),
            str(run.served),
            str(run.pictures),
            f"{run.prefix_hit_share:.0%}",
            f"{run.seconds:.1f}",
        )
    return table


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "-"
