"""Publishing replaces what lies at an output, so nothing else may lie there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.drafts import only_run, require_safe_places
from components.core.errors import BusyError, InputError
from components.core.receipts import require_nothing_added
from components.core.run import run_step
from components.core.step import In, Metrics, Out, StepSettings, step
from tests.receipts import write_receipt


@step(image="data")
def export(dataset: In, exports: Out, ledger: Out, settings: StepSettings) -> Metrics:
    """Write a file into each output."""
    exports.mkdir(exist_ok=True)
    (exports / "copy").write_bytes((dataset / "data").read_bytes())
    ledger.write_text("{}")
    return {}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("components.core.run.require_contract", lambda *_: None)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "data").write_text("data")
    return tmp_path


def run(places: Path, exports: str = "exports", ledger: str = "ledger.json") -> None:
    outputs = {"exports": places / exports, "ledger": places / ledger}
    run_step(export, {"dataset": places / "dataset"}, outputs, {})


@pytest.mark.parametrize("exports", ["dataset", "dataset/exports", ".", "ledger.json"])
def test_an_output_that_overlaps_with_another_artifact_is_refused(
    places: Path, exports: str
) -> None:
    with pytest.raises(InputError, match="overlaps with"):
        run(places, exports)
    assert (places / "dataset" / "data").read_text() == "data"


def test_a_folder_or_file_that_no_run_has_made_is_not_replaced(places: Path) -> None:
    photographs = places / "photographs"
    photographs.mkdir()
    (photographs / "one.jpg").write_text("precious")
    for name in ("photographs", "photographs/one.jpg"):
        with pytest.raises(InputError, match=f"{name} is there already"):
            run(places, name)
    with pytest.raises(InputError, match="photographs is there already"):
        run(places, ledger="photographs")
    assert (photographs / "one.jpg").read_text() == "precious"


def test_empty_folders_and_the_same_artifact_are_replaced(places: Path) -> None:
    (places / "exports").mkdir()
    run(places)
    (places / "dataset" / "data").write_text("newer")
    run(places)
    assert (places / "exports" / "copy").read_text() == "newer"


def test_a_data_set_is_replaced_by_another_whatever_it_was_made_as(places: Path) -> None:
    @step(image="data")
    def bring(dataset: Out, settings: StepSettings) -> Metrics:
        """Bring a data set."""
        return {}

    folder = places / "dataset"
    write_receipt(folder, "pack", "longgrit", files={"longgrit/data": "0" * 64})
    require_safe_places(bring, {}, {"dataset": folder})
    require_nothing_added("dataset", folder)
    (folder / "note").write_text("mine")
    with pytest.raises(InputError, match=r"1 file\(s\) in it are not step pack's: .*note"):
        require_nothing_added("dataset", folder)


@pytest.mark.parametrize("content", ['{"files": {"records/a": ""}}', '{"records/a": "\udcff', "{"])
def test_another_artifact_is_not_replaced_although_its_receipt_is_damaged(
    places: Path, content: str
) -> None:
    exports = places / "exports"
    exports.mkdir()
    (exports / "_receipt.json").write_text(content, errors="surrogateescape")
    if content == "{":  # it may be ours
        run(places)
        return
    with pytest.raises(InputError, match="exports is there already and holds something else"):
        run(places)


@pytest.mark.parametrize("name", ["notes.txt", "deep/more.parquet", "link"])
def test_what_a_person_has_put_into_an_output_is_not_removed_with_it(
    places: Path, name: str
) -> None:
    run(places)
    mine = places / "exports" / name
    if name == "link":
        mine.symlink_to("nowhere")
    else:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
    (places / "exports" / ".DS_Store").write_text("")
    (places / "dataset" / "data").write_text("newer")
    with pytest.raises(InputError, match=rf"1 file.*not step export's: .*{name}; move them away"):
        run(places)
    assert os.path.lexists(mine)
    mine.unlink()
    run(places)
    assert (places / "exports" / "copy").read_text() == "newer"


def test_an_output_below_a_file_is_refused_by_name(places: Path) -> None:
    (places / "dataset-file").write_text("no folder")
    with pytest.raises(InputError, match=r"cannot write .*dataset-file/exports: .*File exists"):
        run(places, "dataset-file/exports")


def test_the_root_of_the_file_system_is_no_output(places: Path) -> None:
    with pytest.raises(InputError, match=r"^/ cannot be replaced"):
        run(places, "/")


def test_two_runs_do_not_write_the_same_output_at_once(places: Path) -> None:
    with only_run(places / "exports"), pytest.raises(BusyError, match="another run is writing"):
        run(places)
    run(places)
    assert not list(places.glob(".*.lock"))


def test_a_killed_run_locks_nobody_out(places: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from components.core.drafts import only_run\n"
        "with only_run(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(places / "exports")]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -9
    run(places)
