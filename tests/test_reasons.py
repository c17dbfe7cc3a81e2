"""Every reason for a drop is described once, given somewhere, and stands in the documentation."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli import cli
from components.core.counts import quarantine_row
from components.reasons import markdown
from data_contracts.reasons import BY_STEP, ContractReason, Reason, is_known, reasons_of
from pixclip.image_limits import ImageFault

ROOT = Path(__file__).parents[1]
KINDS = {kind for kinds in BY_STEP.values() for kind in kinds} | {ContractReason}
DEFINITION = ROOT / "data_contracts" / "reasons.py"
ROW = {"region_id": "1-00", "record_id": "1", "url": "https://a.example/1.jpg", "phrase": "a cat"}


def given() -> Iterator[str]:
    """`Kind.NAME` of every reason that the product's code mentions."""
    for folder in ("components", "data_contracts", "model/pixclip"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == DEFINITION:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield f"{node.value.id}.{node.attr}"


def test_every_reason_in_the_table_is_given_somewhere() -> None:
    mentioned = set(given())
    faults = {fault.value for fault in ImageFault if f"ImageFault.{fault.name}" in mentioned}
    unused = {
        f"{kind.__name__}.{reason.name}"
        for kind in KINDS
        for reason in kind
        if f"{kind.__name__}.{reason.name}" not in mentioned and reason not in faults
    }
    assert not unused


def test_no_reason_of_a_step_is_described_twice() -> None:
    for step in BY_STEP:
        names = [reason.value for reason in reasons_of(step)]
        assert len(names) == len(set(names)), step


def test_meanings_are_phrases_that_fit_in_a_table() -> None:
    meanings = [reason.meaning for kind in KINDS for reason in kind]
    assert all(meaning[0].islower() or meaning.startswith("CLIP") for meaning in meanings)
    assert not [meaning for meaning in meanings if meaning.endswith(".") or "|" in meaning]


@pytest.mark.parametrize(
    ("step", "reason", "expected"),
    [
        ("ingest", "http_404", True),
        ("ingest", "http_*", True),
        ("select", "http_404", False),
        ("describe", "truncated_image", True),
        ("select", "contract:score_in_range", True),
        ("select", "low_scores", False),
    ],
)
def test_a_step_knows_its_own_reasons_and_those_of_contracts(
    step: str, reason: str, expected: bool
) -> None:
    assert is_known(step, reason) is expected


def test_a_reason_that_nobody_described_does_not_get_into_a_quarantine() -> None:
    assert quarantine_row("select", ROW, "low_score")["reason"] == "low_score"
    with pytest.raises(ValueError, match="select has no reason 'looks_odd'"):
        quarantine_row("select", ROW, "looks_odd")


def test_a_reason_is_the_text_that_the_quarantine_holds() -> None:
    for kind in KINDS:
        for reason in kind:
            assert isinstance(reason, Reason)
            assert f"{reason}" == str(reason) == reason.value
            assert {reason: 1} == {reason.value: 1}


def test_the_document_holds_the_table() -> None:
    document = (ROOT / "docs" / "reasons.md").read_text()
    assert document == markdown(), "run `pixclip reasons --markdown > docs/reasons.md`"


def test_the_command_prints_the_reasons_of_one_step() -> None:
    shown = CliRunner().invoke(cli, ["reasons", "segment"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert "own_mask_unusable" in shown.output
    assert "contract:*" in shown.output
    assert "low_score" not in shown.output
