"""A run that has nothing to do is known without Airflow, and only where nothing can be stale."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.core.digests import file_sha256
from components.core.receipts import Receipt
from components.orchestration import laptop
from components.orchestration.airflow_home import AIRFLOW_FOLDER
from components.orchestration.unchanged import (
    FOLDER,
    Run,
    causes_of,
    note_unchanged,
    unchanged_since,
)

CONF = {"run_folder": "runs/demo", "overrides": {"publish": {"repository": "runs/demo/repository"}}}


def receipt_of(folder: Path, *names: str) -> str:
    return Receipt(
        step="pack",
        version=1,
        artifact="longgrit",
        fingerprint="f",
        settings={},
        thresholds={},
        inputs={},
        metrics={},
        contracts={},
        files={f"longgrit/{name}": file_sha256(folder / name) for name in names},
    ).to_json()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A project in which a run has just succeeded."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_", "PIXCLIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    contents = {
        "params/longgrit.yaml": "sample_grit:\n  photographs: photographs\n",
        "dags/longgrit_build.py": "# tasks\n",
        "photographs/lamp.png": "lamp",
        "runs/demo/longgrit/00000.tar": "shard",
        "runs/demo/quarantine/pack.parquet": "rows",
        "runs/mlflow/mlflow.db": "versions",
        "elsewhere/notes.txt": "nobody reads them",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    longgrit = tmp_path / "runs/demo/longgrit"
    (longgrit / "_receipt.json").write_text(receipt_of(longgrit, "00000.tar"))
    return tmp_path


def a_run(home: Path, **conf: object) -> Run:
    return Run(home, ["longgrit_build"], [{**CONF, **conf}])


def notes_of(home: Path) -> Path:
    return home / AIRFLOW_FOLDER / FOLDER


def noted(home: Path, run: Run) -> Run:
    note_unchanged(run, notes_of(home), causes_of(run))
    return run


def test_a_run_after_which_nothing_changed_has_nothing_to_do(home):
    run = a_run(home)
    assert not unchanged_since(run, notes_of(home)), "it was never run"
    noted(home, run)
    (home / "elsewhere/notes.txt").write_text("still nobody")
    assert unchanged_since(a_run(home), notes_of(home))


@pytest.mark.parametrize(
    "name",
    [
        "params/longgrit.yaml",
        "dags/longgrit_build.py",
        "photographs/lamp.png",
        "photographs/new.png",
        "runs/demo/longgrit/00000.tar",
        "runs/demo/longgrit/_receipt.json",
        "runs/demo/quarantine/pack.parquet",
        "runs/demo/repository/HEAD",
        "runs/mlflow/mlflow.db",
    ],
)
def test_a_file_that_was_written_since_makes_a_run_necessary(home, name):
    run = noted(home, a_run(home))
    (home / name).parent.mkdir(exist_ok=True)
    with (home / name).open("a") as file:
        file.write(" ")
    assert not unchanged_since(run, notes_of(home))


def test_bytes_are_compared_and_not_times(home):
    run = noted(home, a_run(home))
    shard = home / "runs/demo/longgrit/00000.tar"
    before = shard.stat()
    shard.write_text("SHARD")
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not unchanged_since(run, notes_of(home))


def test_a_file_that_is_gone_makes_a_run_necessary(home):
    run = noted(home, a_run(home))
    (home / "runs/demo/quarantine/pack.parquet").unlink()
    assert not unchanged_since(run, notes_of(home))


def test_another_conf_is_another_run(home):
    noted(home, a_run(home))
    assert not unchanged_since(a_run(home, overrides={}), notes_of(home))


def test_a_step_s_variable_that_is_new_makes_a_run_necessary(home, monkeypatch):
    run = noted(home, a_run(home))
    monkeypatch.setenv("PIXCLIP_GIT_COMMIT", "f00")
    assert not unchanged_since(run, notes_of(home))


def test_changed_code_makes_a_run_necessary(home, monkeypatch, tmp_path_factory):
    package = tmp_path_factory.mktemp("package")
    (package / "pack.py").write_text("SIZE = 1\n")
    monkeypatch.setattr("data_contracts.__path__", [str(package)])
    run = noted(home, a_run(home))
    assert unchanged_since(run, notes_of(home))
    (package / "pack.py").write_text("SIZE = 2\n")
    assert not unchanged_since(run, notes_of(home))


@pytest.mark.parametrize(
    "conf",
    [
        {"overrides": {"publish": {"remote": "s3://versions/longgrit"}}},
        {"overrides": {"describe": {"object": {"endpoints": ["http://host:8000/v1"]}}}},
        {"backend": "docker"},
        {"run_folder": ""},
    ],
)
def test_a_run_that_looks_beyond_this_machine_is_never_left_out(home, conf):
    run = noted(home, a_run(home, **conf))
    assert not unchanged_since(run, notes_of(home))


def test_a_run_with_a_tracking_server_is_never_left_out(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    run = noted(home, a_run(home))
    assert not unchanged_since(run, notes_of(home))


def test_settings_that_changed_during_a_run_are_not_taken_for_its_own(home):
    run = a_run(home)
    causes = causes_of(run)
    (home / "params/longgrit.yaml").write_text("sample_grit:\n  num_scenes: 7\n")
    note_unchanged(run, notes_of(home), causes)
    assert not unchanged_since(run, notes_of(home))


def test_results_that_are_not_as_their_receipt_says_are_not_noted(home):
    (home / "runs/demo/longgrit/00000.tar").write_text("edited while the run went on")
    run = noted(home, a_run(home))
    assert not unchanged_since(run, notes_of(home))


def test_a_damaged_note_counts_as_none(home):
    run = noted(home, a_run(home))
    (notes_of(home) / run.note()).write_text("{")
    assert not unchanged_since(run, notes_of(home))


def test_the_laptop_starts_no_airflow_for_a_run_that_has_nothing_to_do(home, monkeypatch):
    noted(home, a_run(home))

    def refuse(*_: object) -> None:
        raise AssertionError("Airflow was made ready")

    monkeypatch.setattr(laptop, "prepare", refuse)
    arguments = ["run", "--dag", "longgrit_build", "--conf", json.dumps(CONF)]
    done = CliRunner().invoke(laptop.main, arguments)
    assert done.exit_code == 0, done.output
    assert "nothing to do" in done.output
