"""Make the candidate the champion: `pixclip promote --registration … --promotion …`.

`report.json` and `report.html` say what was decided and why, check by check; nothing is loaded by
the page, see `components.core.pages`.

pixclip promote --registration runs/demo/registration --promotion runs/demo/promotion
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import GateError, InputError
from components.core.pages import template
from components.core.step import In, Metrics, Out, step
from components.registry.evaluations import read_evaluation_whole
from components.registry.models import Reference
from components.registry.policy import Check, PromoteSettings, check_candidate

if TYPE_CHECKING:
    from components.registry.models import Registry, Version
    from components.registry.promotions import Entry

REGISTRATION_NAME = "registration.json"
EVALUATION_FOLDER = "evaluation"
POLICY_MET = "The policy was met."


# Another champion asks for another decision: the step looks every time.
@step(image="train", is_pure=False, version=2)
def promote(registration: In, promotion: Out, settings: PromoteSettings) -> Metrics:
    """Make the candidate the champion, if it passes the policy.

    `registration.json` names the model and its version, by number or alias. What was decided and
    why is in `report.json` and `report.html`, and in the promotion log of the registry. A run that
    was killed after the decision finds it in that log and reports it.
    """
    from components.registry.models import Registry
    from components.registry.promotions import earlier_run, promotion_entry, remember_run

    reference = read_registration(registration)
    registry = Registry(settings.tracking_uri)
    with promotion_entry(registry, reference.model) as entry:
        candidate = registry.get(reference)
        done = entry.done_by(earlier_run(promotion)) or entry.finished
        report = _told(entry, candidate, done)
        if report is None:
            remember_run(promotion, entry.run_id)
            report = _decide(registry, entry, candidate, settings)
    promotion.mkdir(parents=True, exist_ok=True)
    write_report(promotion, report)
    if report.outcome == KEPT and settings.fail_if_kept:
        reasons = {check.name: 1 for check in report.failed}
        raise GateError(report.headline, reasons, "The promotion log of the registry says why.")
    return _metrics(report)


def read_registration(registration: Path) -> Reference:
    """Which version of which model is meant.

    Raises:
        InputError: the folder holds no registration.
        SettingsError: its names are none.
    """
    path = registration / REGISTRATION_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Reference(str(content["model"]), str(content["version"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} says no model and version ({error!r}); register first") from None


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


def _told(entry: "Entry", candidate: "Version", done: Mapping[str, str]) -> Report | None:
    """The report of an earlier attempt's promotion, which was killed before it wrote one."""
    from components.registry.promotions import NONE, PROMOTE

    if (done.get("action"), done.get("to")) != (PROMOTE, candidate.number):
        return None
    entry.note({"action": PROMOTE, "outcome": ALREADY, "candidate": candidate.number})
    before = "" if done["from"] == NONE else done["from"]
    return Report(
        model=candidate.model,
        outcome=PROMOTED,
        candidate=candidate.number,
        champion_before=before,
        champion_after=candidate.number,
        reason=done.get("reason", ""),
        checks=checks_of(done),
    )


def _decide(
    registry: "Registry", entry: "Entry", candidate: "Version", settings: PromoteSettings
) -> Report:
    """Look at the champion of this moment, decide, and move the aliases if the policy is met."""
    from components.registry.promotions import PROMOTE, move_to

    champion = entry.champions().champion
    before = champion.number if champion else ""

    def report(outcome: str, reason: str, checks: list[Check]) -> Report:
        after = before if outcome == KEPT else candidate.number
        return Report(candidate.model, outcome, candidate.number, before, after, reason, checks)

    if before == candidate.number:
        entry.note({"action": PROMOTE, "outcome": ALREADY, "candidate": candidate.number})
        made = move_to(registry, candidate)
        why = f" It became the champion for this reason: {made['reason']}" if made else ""
        return report(ALREADY, f"The aliases stay as they are.{why}", checks_of(made))
    checks = _check(registry, candidate, champion, settings)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        reason = f"Not passed: {'; '.join(failed)}."
        told = {"candidate": candidate.number, "champion": before, "reason": reason}
        entry.note({"action": PROMOTE, "outcome": KEPT, **told, **notes_of(checks)})
        return report(KEPT, reason, checks)
    reason = settings.reason or POLICY_MET
    entry.move(PROMOTE, candidate, reason, notes_of(checks))
    entry.note({"outcome": PROMOTED})
    return report(PROMOTED, reason, checks)


def _check(
    registry: "Registry",
    candidate: "Version",
    champion: "Version | None",
    settings: PromoteSettings,
) -> list[Check]:
    """The policy's checks on the evaluations that were registered with the versions."""
    from pixclip.evaluation.protocol import EvaluationError

    with tempfile.TemporaryDirectory(prefix="pixclip-promote-") as folder:
        evaluation = _evaluation(registry, candidate, Path(folder) / "candidate")
        read_evaluation_whole(evaluation)
        other = _evaluation(registry, champion, Path(folder) / "champion") if champion else None
        try:
            return check_candidate(evaluation, other, _taken_back(registry, candidate), settings)
        except EvaluationError as error:
            raise InputError(
                f"{candidate.reference} cannot be judged: {error}; register it again"
            ) from error


def _taken_back(registry: "Registry", candidate: "Version") -> "Version | None":
    """The version with the candidate's weights that was rolled back: it, or another evaluation."""
    from components.registry.models import ROLLED_BACK_TAG, WEIGHTS_TAG

    weights = candidate.tags.get(WEIGHTS_TAG, "")
    same = [candidate, *registry.with_tag(candidate.model, WEIGHTS_TAG, weights)]
    return next((version for version in same if ROLLED_BACK_TAG in version.tags), None)


def _evaluation(registry: "Registry", version: "Version", folder: Path) -> Path:
    folder.mkdir()
    return registry.download_verified(version, folder, EVALUATION_FOLDER)


def _metrics(report: Report) -> Metrics:
    return {
        "promoted": int(report.outcome != KEPT),
        "candidate_version": int(report.candidate),
        "champion_version": int(report.champion_after or 0),
        "num_checks": len(report.checks),
        "num_checks_failed": len(report.failed),
    }


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
