"""What a local run of `pixclip-train` ended with: metrics, the policy's word, where to look."""

import json
from collections.abc import Callable
from pathlib import Path

from components.pipelines.local import LocalRun

SHOWN = {
    "evaluation": ("evaluation.html", "evaluation.json"),
    "promotion": ("report.html", "report.json"),
}


def tell_results(run: LocalRun, say: Callable[[str], None]) -> None:
    """Say whether the candidate was promoted and why, and where the artifacts are."""
    promotion = run.artifacts.get("promotion")
    if promotion:
        for line in promotion_lines(promotion):
            say(line)
    say(f"artifacts of this run: {run.folder}")
    for name, path in run.artifacts.items():
        pages = [path / page for page in SHOWN.get(name, ()) if (path / page).exists()]
        say(f"  {name}: {pages[0] if pages else path}")


def promotion_lines(promotion: Path) -> list[str]:
    """The policy's word and each check that failed."""
    report = json.loads((promotion / "report.json").read_text())
    return [json.dumps(report)]
