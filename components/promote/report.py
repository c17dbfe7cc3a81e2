"""`report.json` and `report.html`: what was decided, and why, check by check.

The page holds no scripts, every value is escaped, and its own policy forbids anything from
elsewhere.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from components.promote.policy import Check

REPORT_NAME, PAGE_NAME = "report.json", "report.html"
TEMPLATES = Path(__file__).parent / "templates"
PROMOTED, KEPT, ALREADY = "promoted", "kept", "already_champion"
HEADLINES = {
    PROMOTED: "Promoted: version {candidate} is the champion",
    KEPT: "Kept: version {candidate} did not become the champion",
    ALREADY: "Nothing to do: version {candidate} is the champion already",
}


@dataclass(frozen=True)
class Report:
    """A decision."""

    model: str
    outcome: str
    candidate: str  # version numbers; empty: none
    champion_before: str
    champion_after: str
    reason: str
    checks: Sequence[Check] = field(default=())

    @property
    def headline(self) -> str:
        """The decision in a line."""
        return HEADLINES[self.outcome].format(candidate=self.candidate)

    @property
    def failed(self) -> list[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if not check.passed]


def write_report(folder: Path, report: Report) -> None:
    """Write both files."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    content = {"headline": report.headline, **asdict(report)}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(report=report)
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")
