"""`report.json` and `report.html`: what was decided, and why, check by check.

The page holds no scripts and nothing from elsewhere, see `kernel.pages`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from components.kernel.pages import template
from components.promote.policy import Check

REPORT_NAME, PAGE_NAME = "report.json", "report.html"
TEMPLATES = Path(__file__).parent / "templates"
PROMOTED, KEPT, ALREADY = "promoted", "kept", "already_champion"
CHECK_NOTE = "check."
MAX_NOTED_CHARS = 1000  # of each text of a check: a note of the log has an end
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


def notes_of(checks: Sequence[Check]) -> dict[str, str]:
    """Checks as notes of the promotion log, one each."""
    return {
        f"{CHECK_NOTE}{number:03}": json.dumps(_clipped(check), ensure_ascii=False)
        for number, check in enumerate(checks)
    }


def checks_of(notes: Mapping[str, str]) -> list[Check]:
    """The checks in an entry of the promotion log; what cannot be read is left out."""
    found = []
    for name in sorted(name for name in notes if name.startswith(CHECK_NOTE)):
        with suppress(ValueError, TypeError):  # somebody else's
            found.append(Check(**json.loads(notes[name])))
    return found


def _clipped(check: Check) -> dict[str, object]:
    values = asdict(check).items()
    return {k: v[:MAX_NOTED_CHARS] if isinstance(v, str) else v for k, v in values}


def write_report(folder: Path, report: Report) -> None:
    """Write both files."""
    content = {"headline": report.headline, **asdict(report)}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
    page = template(TEMPLATES, "report.html.j2").render(report=report)
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")
