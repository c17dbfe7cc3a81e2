import io
import json
import shutil
from collections import Counter

import pytest
from rich.console import Console

from components.core.counts import region_counts
from components.core.errors import InputError
from components.core.step import load_step
from components.data.pack.settings import PackSettings
from components.data.pack.statistics import count_reasons
from components.orchestration.summary import render, summarise
from tests.receipts import write_receipt

PACK = load_step("pack")


def write_step_receipt(folder, step, regions_in, regions_out, reasons):
    folder.mkdir(parents=True, exist_ok=True)
    metrics = region_counts(regions_in, regions_out, reasons)
    write_receipt(folder, step, folder.name, metrics=metrics)


@pytest.fixture
def finished(make_run):
    """A run folder with the receipts of all steps; `describe` and `ingest` ran in two groups."""
    run = make_run()
    reasons = count_reasons(run.folder / "quarantine")
    nothing = type(reasons["select"])()
    longgrit = run.folder / "longgrit"
    longgrit.mkdir()
    PACK.function(**run.inputs, longgrit=longgrit, settings=PackSettings())
    write_step_receipt(run.folder / "records", "select", 41, 40, reasons["select"])
    write_step_receipt(run.folder / "images/00000", "ingest", 20, 18, reasons["ingest"])
    write_step_receipt(run.folder / "images/00001", "ingest", 20, 20, nothing)
    write_step_receipt(run.folder / "candidates", "deduplicate", 38, 38, nothing)
    write_step_receipt(run.folder / "regions/00000", "segment", 38, 37, reasons["segment"])
    write_step_receipt(run.folder / "captions/00000", "describe", 19, 18, reasons["describe"])
    write_step_receipt(run.folder / "captions/00001", "describe", 18, 18, nothing)
    write_step_receipt(longgrit, "pack", 36, 36, nothing)
    for group in ("00000", "00001"):
        total = {"requests": 90, "seconds": 4.5, "cost_usd": 0.009}
        ledger = run.folder / "ledger" / f"{group}.json"
        ledger.parent.mkdir(exist_ok=True)
        ledger.write_text(json.dumps({"accepted": 18, "total": total}))
    return run.folder


def printed(summary):
    console = Console(file=io.StringIO(), width=200)
    console.print(render(summary))
    return console.file.getvalue()


def test_regions_are_summed_over_groups_and_balance_with_the_quarantine(finished):
    summary = summarise(finished)
    lines = [
        (line.step, line.regions_in, line.regions_out, line.reasons.total())
        for line in summary.steps
    ]
    assert lines == [
        ("select", 41, 40, 1),
        ("ingest", 40, 38, 2),
        ("deduplicate", 38, 38, 0),
        ("segment", 38, 37, 1),
        ("describe", 37, 36, 1),
        ("pack", 36, 36, 0),
    ]
    assert all(line.is_balanced for line in summary.steps)
    assert summary.splits.total() == 36


def test_regions_that_a_step_found_balance_with_those_that_went_in(finished):
    metrics = region_counts(38, 43, Counter(), regions_found=5)
    (finished / "detected").mkdir()
    write_receipt(finished / "detected", "detect_parts", "detected", metrics=metrics)
    (line,) = (line for line in summarise(finished).steps if line.step == "detect_parts")
    assert line.is_balanced
    assert "38 + 5" in printed(summarise(finished))


def test_the_table_says_what_came_of_the_run_and_where_to_look(finished):
    text = printed(summarise(finished))
    for said in (
        "http_404 2",
        "at every step",
        "mean 30.0, min 30, max 30",
        "0.250 (describing)",
        "0.000500 US dollars",
        "180",
        "longgrit/report.html",
    ):
        assert said in text
    assert "publication" not in text


def test_a_step_whose_quarantine_lacks_regions_is_pointed_at(finished):
    (finished / "quarantine" / "ingest-00000.parquet").unlink()
    text = printed(summarise(finished))
    assert "NOT at ingest" in text


def test_a_run_of_fg_part_is_told_by_its_own_steps_and_folders(finished, make_run):
    (finished / "longgrit").rename(finished / "fgpart")
    for group in ("00000", "00001"):
        shutil.rmtree(finished / "captions" / group)
        nothing = Counter[str]()
        write_step_receipt(finished / "captions" / group, "describe_parts", 18, 18, nothing)
    write_step_receipt(finished / "uncontaminated", "decontaminate", 38, 38, Counter[str]())
    write_step_receipt(finished / "grit", "import_parts", 41, 41, Counter[str]())
    summary = summarise(finished)
    assert [line.step for line in summary.steps] == [
        *("import_parts", "select", "ingest", "deduplicate", "decontaminate", "segment"),
        *("describe_parts", "pack"),
    ]
    text = printed(summary)
    assert "FG-Part" in text
    assert "fgpart/report.html" in text


def test_a_run_that_stopped_early_shows_the_steps_it_finished(make_run):
    run = make_run()
    write_step_receipt(
        run.folder / "records", "select", 41, 40, count_reasons(run.folder / "quarantine")["select"]
    )
    summary = summarise(run.folder)
    assert [line.step for line in summary.steps] == ["select"]
    assert summary.cost is None
    assert "small_box 1" in printed(summary)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no finished step"):
        summarise(tmp_path)
