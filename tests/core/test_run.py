"""What holds around every step: published only when whole and good, never done twice."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import Field

from components.core.counts import quarantine_row, region_counts, write_quarantine
from components.core.digests import RECEIPT_NAME
from components.core.errors import ContractViolation, GateError, InputError, SettingsError
from components.core.receipts import read_receipt
from components.core.run import run_step
from components.core.step import ARTIFACTS, In, Metrics, Out, StepSettings, runtime, step
from components.core.tables import WORK_FOLDER, read_rows, write_rows
from data_contracts.engine.check import ContractResult
from data_contracts.records import SCHEMA
from tests.rows import record_row

Paths = dict[str, Path]
CALLS: Counter[str] = Counter()
PART = "00000/part-00000.parquet"


class MakeSettings(StepSettings):
    """Settings of the first step."""

    num_rows: int = Field(20, description="regions to write", ge=0)
    min_score: float = Field(0.5, description="lowest score", ge=0, le=1)
    fault: str = Field("", description="what goes wrong, for the tests")
    threads: int = runtime(1, "how it runs, not what it makes", ge=1)


@step(image="data")
def select(grit: In, records: Out, quarantine: Out, settings: MakeSettings) -> Metrics:
    """Write regions, with the fault that the settings name."""
    CALLS["select"] += 1
    rows = [record_row(number) for number in range(settings.num_rows)]
    if settings.fault == "one_bad_row":
        rows[3]["box_norm"] = [0.1, 0.1, 1.7, 0.6]
    if settings.fault == "many_bad_rows":
        for row in rows[:7]:
            row["score"] = 3.0
    dropped = rows.pop()
    work = records / WORK_FOLDER / "progress"
    resumed = work.read_text() if work.exists() else ""
    work.parent.mkdir(parents=True, exist_ok=True)
    work.write_text("half way")
    if settings.fault == "killed" and not resumed:
        raise KeyboardInterrupt
    CALLS["resumed"] += bool(resumed)
    write_rows(records / PART, rows, SCHEMA)
    if settings.fault == "private":
        (records / PART).chmod(0o600)
    if settings.fault == "gate":
        raise GateError("select: too little is left", {"low_score": 19}, "Lower min_score.")
    write_quarantine(quarantine, [quarantine_row("select", dropped, "low_score")])
    lost = 1 if settings.fault == "loses_a_row" else 0
    return region_counts(len(rows) + 1 + lost, len(rows), Counter({"low_score": 1}))


@step(image="data")
def export(records: In, exports: Out, settings: StepSettings) -> Metrics:
    """Count regions."""
    CALLS["export"] += 1
    exports.mkdir()
    (exports / "count.txt").write_text(str(sum(1 for _ in read_rows(records))))
    return {"num_files": 1}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A source without rules: what it holds does not matter here."""
    monkeypatch.setitem(ARTIFACTS, "grit", replace(ARTIFACTS["grit"], contract=""))
    (tmp_path / "grit").mkdir()
    (tmp_path / "grit" / "part.parquet").write_bytes(b"source")
    return {"grit": tmp_path / "grit"}


@pytest.fixture
def outputs(tmp_path: Path) -> Paths:
    folder = tmp_path / "runs"
    return {"records": folder / "records", "quarantine": folder / "quarantine" / "select.parquet"}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contracts that everything meets, for tests of what is around them."""
    monkeypatch.setattr(
        "components.core.contracts.check_table",
        lambda artifact, path, related=None, **_: ContractResult(artifact, 1, ()),
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".owner-of-")
    }


def test_a_good_output_is_published_with_its_receipt(inputs: Paths, outputs: Paths) -> None:
    receipt = run_step(select, inputs, outputs, {})
    assert read_receipt(outputs["records"]) == receipt
    assert receipt.metrics["regions_out"] == 19
    assert set(receipt.contracts) == {"records", "quarantine"}
    assert set(receipt.files) == {f"records/{PART}", "quarantine"}
    assert sorted(tree(outputs["records"].parent)) == [
        "quarantine/select.parquet",
        "records/00000/part-00000.parquet",
        "records/_receipt.json",
    ]


@pytest.mark.usefixtures("unchecked")
def test_a_finished_run_is_not_repeated(inputs: Paths, outputs: Paths) -> None:
    first = run_step(select, inputs, outputs, {})
    before = {path: path.stat().st_mtime_ns for path in outputs["records"].rglob("*")}
    assert run_step(select, inputs, outputs, {}) == first
    assert CALLS["select"] == 1
    assert before == {path: path.stat().st_mtime_ns for path in outputs["records"].rglob("*")}


@pytest.mark.usefixtures("unchecked")
def test_changed_settings_run_again_and_runtime_settings_do_not(
    inputs: Paths, outputs: Paths
) -> None:
    run_step(select, inputs, outputs, {})
    receipt = run_step(select, inputs, outputs, {"threads": 8})
    assert CALLS["select"] == 1
    assert "threads" not in receipt.settings
    run_step(select, inputs, outputs, {"num_rows": 10})
    assert CALLS["select"] == 2
    assert len(list(read_rows(outputs["records"]))) == 9


@pytest.mark.usefixtures("unchecked")
def test_a_changed_input_runs_again(inputs: Paths, outputs: Paths) -> None:
    run_step(select, inputs, outputs, {})
    (inputs["grit"] / "part.parquet").write_bytes(b"another source")
    run_step(select, inputs, outputs, {})
    assert CALLS["select"] == 2


@pytest.mark.usefixtures("unchecked")
def test_a_missing_second_output_runs_again(inputs: Paths, outputs: Paths) -> None:
    run_step(select, inputs, outputs, {})
    outputs["quarantine"].unlink()
    run_step(select, inputs, outputs, {})
    assert CALLS["select"] == 2
    assert outputs["quarantine"].exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("damaged", ["", '{"step": "sel', "[]", "{}"])
def test_a_damaged_receipt_vouches_for_nothing(inputs: Paths, outputs: Paths, damaged: str) -> None:
    receipt = run_step(select, inputs, outputs, {})
    (outputs["records"] / RECEIPT_NAME).write_text(damaged)
    assert run_step(select, inputs, outputs, {}) == receipt
    assert CALLS["select"] == 2


@pytest.mark.usefixtures("unchecked")
def test_a_killed_run_is_resumed_from_its_draft(inputs: Paths, outputs: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_step(select, inputs, outputs, {"fault": "killed"})
    assert not outputs["records"].exists()
    run_step(select, inputs, outputs, {"fault": "killed"})
    assert CALLS["resumed"] == 1
    assert not (outputs["records"] / WORK_FOLDER).exists()


@pytest.mark.usefixtures("unchecked")
def test_the_draft_of_other_settings_is_not_resumed(inputs: Paths, outputs: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_step(select, inputs, outputs, {"fault": "killed"})
    run_step(select, inputs, outputs, {})
    assert CALLS["resumed"] == 0
    assert not left_over(outputs)


def test_an_output_that_breaks_its_contract_is_not_published(inputs: Paths, outputs: Paths) -> None:
    run_step(select, inputs, outputs, {})
    before = tree(outputs["records"])
    with pytest.raises(ContractViolation) as error:
        run_step(select, inputs, outputs, {"fault": "many_bad_rows"})
    message = str(error.value)
    assert "'records' breaks 1 rule(s): score_in_range: 7 row(s), e.g. 0-00 (score=3)" in message
    assert "7 of 19 rows, the budget is" in message
    assert tree(outputs["records"]) == before


@pytest.mark.usefixtures("unchecked")
def test_published_files_can_be_read_by_other_users(inputs: Paths, outputs: Paths) -> None:
    run_step(select, inputs, outputs, {"fault": "private"})
    assert (outputs["records"] / PART).stat().st_mode & 0o444 == 0o444


def test_a_gate_that_refuses_publishes_nothing(inputs: Paths, outputs: Paths) -> None:
    with pytest.raises(GateError, match="too little is left"):
        run_step(select, inputs, outputs, {"fault": "gate"})
    assert not outputs["records"].exists()
    assert not outputs["quarantine"].exists()


@pytest.mark.usefixtures("unchecked")
def test_a_step_that_loses_a_region_is_a_bug(inputs: Paths, outputs: Paths) -> None:
    with pytest.raises(AssertionError, match="select lost regions"):
        run_step(select, inputs, outputs, {"fault": "loses_a_row"})
    assert not outputs["records"].exists()


def test_failing_rows_within_the_budget_go_to_the_quarantine(inputs: Paths, outputs: Paths) -> None:
    receipt = run_step(select, inputs, outputs, {"fault": "one_bad_row", "num_rows": 100})
    kept = [row["region_id"] for row in read_rows(outputs["records"])]
    lost = {row["region_id"]: row["reason"] for row in read_rows(outputs["quarantine"])}
    assert "3-00" not in kept
    assert len(kept) == 98
    assert lost == {"3-00": "contract:box_inside_image", "99-00": "low_score"}
    assert receipt.metrics["regions_out"] == 98
    assert receipt.metrics["regions_quarantined"] == 2
    assert receipt.metrics["quarantined.contract:box_inside_image"] == 1
    assert not left_over(outputs)


def test_the_same_work_gives_the_same_bytes_without_times_and_paths(
    inputs: Paths, tmp_path: Path
) -> None:
    trees = []
    for name in ("one", "two"):
        outputs = {
            "records": tmp_path / name / "records",
            "quarantine": tmp_path / name / "select.parquet",
        }
        run_step(select, inputs, outputs, {"fault": "one_bad_row", "num_rows": 100})
        trees.append(tree(tmp_path / name))
    assert trees[0] == trees[1]
    receipt = json.loads((tmp_path / "one" / "records" / "_receipt.json").read_text())
    assert str(tmp_path) not in json.dumps(receipt)
    assert set(receipt) == {
        "step",
        "version",
        "artifact",
        "fingerprint",
        "settings",
        "thresholds",
        "inputs",
        "metrics",
        "contracts",
        "files",
        "checksum",
    }


def test_an_unknown_setting_is_named_with_its_step(inputs: Paths, outputs: Paths) -> None:
    with pytest.raises(SettingsError, match=r"select\.min_scor\b"):
        run_step(select, inputs, outputs, {"min_scor": 0.2})
    with pytest.raises(SettingsError, match=r"select\.min_score: .*less than or equal to 1.*7"):
        run_step(select, inputs, outputs, {"min_score": 7})
    assert not outputs["records"].parent.exists()


def test_a_missing_input_or_path_is_named(inputs: Paths, outputs: Paths, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input grit is not at"):
        run_step(select, {"grit": tmp_path / "nowhere"}, outputs, {})
    with pytest.raises(InputError, match="needs a path for its input grit"):
        run_step(select, {}, outputs, {})
    with pytest.raises(InputError, match=r"needs a path for its output\(s\) quarantine"):
        run_step(select, inputs, {"records": outputs["records"]}, {})


@pytest.mark.usefixtures("unchecked")
def test_an_input_that_met_its_contract_is_not_checked_again(
    inputs: Paths, outputs: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step(select, inputs, outputs, {})

    def never(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("components.core.contracts.check_table", never)
    run_step(export, {"records": outputs["records"]}, {"exports": tmp_path / "all"}, {})
    group = outputs["records"] / "00000"  # its receipt is in the folder around the groups
    run_step(export, {"records": group}, {"exports": tmp_path / "group"}, {})
    assert (tmp_path / "group" / "count.txt").read_text() == "19"


def test_an_input_without_a_receipt_is_checked(inputs: Paths, tmp_path: Path) -> None:
    bad = record_row(1) | {"split": "everything"}
    write_rows(tmp_path / "records" / PART, [bad], SCHEMA)
    with pytest.raises(ContractViolation, match="split_known"):
        run_step(export, {"records": tmp_path / "records"}, {"exports": tmp_path / "out"}, {})
    assert CALLS["export"] == 0


@pytest.mark.usefixtures("unchecked")
def test_a_group_counts_as_changed_only_if_its_files_change(
    inputs: Paths, outputs: Paths, tmp_path: Path
) -> None:
    run_step(select, inputs, outputs, {})
    group, exports = outputs["records"] / "00000", {"exports": tmp_path / "group"}
    run_step(export, {"records": group}, exports, {})
    run_step(select, inputs, outputs, {"min_score": 0.4})  # other settings, equal bytes
    run_step(export, {"records": group}, exports, {})
    assert CALLS["export"] == 1
    run_step(select, inputs, outputs, {"num_rows": 5})
    run_step(export, {"records": group}, exports, {})
    assert CALLS["export"] == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("num_renames", [1, 2, 3, 4])
def test_a_run_killed_while_publishing_is_finished_and_not_repeated(
    num_renames: int,
    inputs: Paths,
    outputs: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = {
        "records": tmp_path / "whole" / "records",
        "quarantine": tmp_path / "whole" / "quarantine" / "select.parquet",
    }
    run_step(select, inputs, whole, {})
    run_step(select, inputs, outputs, {"num_rows": 7})  # an older output is in the way
    CALLS.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename(num_renames))
        with pytest.raises(KeyboardInterrupt):
            run_step(select, inputs, outputs, {})
    run_step(select, inputs, outputs, {})
    assert CALLS["select"] == 1
    assert tree(outputs["records"].parent) == tree(whole["records"].parent)


@pytest.mark.parametrize("place", ["checking", "publishing"])
def test_copies_without_failing_rows_survive_a_kill(
    place: str, inputs: Paths, outputs: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"fault": "one_bad_row", "num_rows": 100}
    with monkeypatch.context() as patch:
        if place == "checking":
            patch.setattr("components.core.contracts.write_quarantine", killed)
        else:
            patch.setattr(Path, "rename", dying_rename(1))
        with pytest.raises(KeyboardInterrupt):
            run_step(select, inputs, outputs, settings)
    assert list(outputs["records"].parent.glob(".*-checked"))
    receipt = run_step(select, inputs, outputs, settings)
    assert CALLS["resumed"] == (place == "checking")
    assert receipt.metrics["regions_quarantined"] == 2
    assert len(list(read_rows(outputs["quarantine"]))) == 2
    assert not left_over(outputs)


def left_over(outputs: Paths) -> list[Path]:
    """Hidden files beside the outputs, but for the note of whose the quarantine is."""
    hidden = outputs["records"].parent.rglob(".*")
    return [path for path in hidden if not path.name.startswith(".owner-of-")]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def dying_rename(num_renames: int) -> Callable[[Path, Path], Path]:
    """Path.rename that is killed at the n-th rename of a publication."""
    rename, seen = Path.rename, Counter[str]()

    def renamed(path: Path, target: Path) -> Path:
        is_publication = "draft" in f"{path.name}{Path(target).name}" and path.suffix != ".original"
        seen["renames"] += is_publication
        if is_publication and seen["renames"] == num_renames:
            raise KeyboardInterrupt
        return rename(path, target)

    return renamed


@pytest.mark.usefixtures("unchecked")
def test_an_unfinished_publication_of_other_settings_is_not_finished(
    inputs: Paths, outputs: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename(1))
        with pytest.raises(KeyboardInterrupt):
            run_step(select, inputs, outputs, {})
    run_step(select, inputs, outputs, {"num_rows": 7})
    assert pq.read_metadata(outputs["records"] / PART).num_rows == 6
    assert not left_over(outputs)
