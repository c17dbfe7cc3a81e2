"""The local Kubeflow runner, with a real component in a real process."""

import json
import os
from pathlib import Path

import pytest

from components.core.errors import InputError, PipelineError, SettingsError
from components.core.process import WAITING_THREADS
from components.core.receipts import read_receipt
from components.core.run import run_digest
from components.core.step import load_step
from components.orchestration.local import (
    StepCrashedError,
    StepRun,
    container_environment,
    docker_runner,
    open_backend,
    shared_folder,
)
from data_contracts.engine.contract import contract_digest
from tests.receipts import write_receipt

RELATIVE_RUN = StepRun(
    "publish",
    {"dataset": Path("longgrit")},
    {"publication": Path("publication")},
    {"repository": "versions"},
)


def packed(folder: Path) -> Path:
    """A data set whose receipt says that it met its contract."""
    folder.mkdir()
    (folder / "README.md").write_text("a data set\n")
    met = {"longgrit": contract_digest("longgrit")}
    write_receipt(folder, "pack", "longgrit", metrics={"num_images": 1}, contracts=met)
    return folder


@pytest.fixture
def publish_run(tmp_path: Path) -> StepRun:
    """A run of `publish` on a small folder: it needs no other step."""
    data = packed(tmp_path / "longgrit")
    return StepRun(
        "publish",
        {"dataset": data},
        {"publication": tmp_path / "publication"},
        {"repository": str(tmp_path / "repository")},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A project folder in which a component has run, on relative paths."""
    home = tmp_path_factory.mktemp("home")
    packed(home / "longgrit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXCLIP_HOME", str(home))
        metrics = open_backend("local").run(RELATIVE_RUN)
    (home / "metrics.json").write_text(json.dumps(metrics))
    return home


def test_a_component_publishes_in_place(home):
    assert read_receipt(home / "publication").step == "publish"
    assert not [path.name for path in home.iterdir() if "draft" in path.name]


def test_a_component_gives_its_metrics_without_kfp_s_floats(home):
    metrics = json.loads((home / "metrics.json").read_text())
    assert metrics["num_files"] == 2
    assert all(type(value) is int for value in metrics.values())


def test_relative_paths_also_of_settings_belong_to_the_project(home):
    content = json.loads((home / "publication" / "publication.json").read_text())
    assert content["repository"] == str(home / "versions")
    assert (home / "versions" / "longgrit.dvc").exists()


def test_a_finished_step_starts_no_process(home, monkeypatch):
    monkeypatch.setenv("PIXCLIP_HOME", str(home))
    monkeypatch.setattr("components.orchestration.local.one_step_pipeline", None)
    run = StepRun("export", RELATIVE_RUN.inputs, {"exports": Path("exports")})
    (home / "exports").mkdir()
    digest = run_digest(load_step("export"), {"dataset": home / "longgrit"}, {})
    write_receipt(home / "exports", "export", "exports", fingerprint=digest, metrics={"n": 3})
    assert open_backend("local").run(run) == {"n": 3}


def test_a_step_that_looks_at_the_world_is_run_again(home, monkeypatch):
    monkeypatch.setenv("PIXCLIP_HOME", str(home))
    before = (home / "publication" / "publication.json").read_text()
    assert open_backend("local").run(RELATIVE_RUN)["num_new_versions"] == 0
    assert (home / "publication" / "publication.json").read_text() == before


def test_the_step_s_own_error_comes_back_from_the_process(publish_run, capsys):
    missing = StepRun("publish", {"dataset": Path("/nowhere/longgrit")}, publish_run.outputs)
    with pytest.raises(InputError, match="input dataset is not at /nowhere/longgrit"):
        open_backend("local").run(missing)
    assert "Traceback" in capsys.readouterr().out, "the component's output is shown"
    assert not publish_run.outputs["publication"].exists()


def test_a_component_s_output_is_utf_8_whatever_encoding_is_asked_for(
    publish_run, monkeypatch, capsys
):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    missing = StepRun("publish", {"dataset": Path("/nowhere/dé")}, publish_run.outputs)
    with pytest.raises(InputError, match="input dataset is not at /nowhere/dé"):
        open_backend("local").run(missing)
    assert "input dataset is not at /nowhere/dé" in capsys.readouterr().out


def test_a_component_s_threads_sleep_while_they_wait(publish_run, tmp_path, monkeypatch):
    for name in WAITING_THREADS:
        monkeypatch.delenv(name, raising=False)
    put_git(tmp_path, monkeypatch, f"env > '{tmp_path}/environment'\nexit 1\n")
    with pytest.raises(PipelineError):
        open_backend("local").run(publish_run)
    told = (tmp_path / "environment").read_text().splitlines()
    assert {f"{name}={value}" for name, value in WAITING_THREADS.items()} <= set(told)


def test_a_wrong_setting_is_refused_before_anything_starts(publish_run, monkeypatch):
    monkeypatch.setattr("components.orchestration.local.one_step_pipeline", None)
    wrong = StepRun("publish", publish_run.inputs, publish_run.outputs, {"nmae": "x"})
    with pytest.raises(SettingsError, match="did you mean 'name'"):
        open_backend("local").run(wrong)


def test_a_killed_component_is_a_crash_that_may_be_retried(publish_run, tmp_path, monkeypatch):
    put_git(tmp_path, monkeypatch, "kill -9 $PPID\n")
    with pytest.raises(StepCrashedError, match="step publish ended without an outcome"):
        open_backend("local").run(publish_run)
    assert not publish_run.outputs["publication"].exists()


def put_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in the place of Git, which `publish` starts."""
    git = folder / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\n{script}")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}{os.pathsep}{os.environ['PATH']}")


def test_an_unknown_backend_is_refused_with_those_that_there_are():
    with pytest.raises(SettingsError, match=r"'kubeflow' is not available.*local, docker"):
        open_backend("kubeflow")


def test_a_container_sees_the_folder_that_holds_all_artifacts(tmp_path):
    run = StepRun(
        "ingest",
        {"records": tmp_path / "run/records/00000"},
        {"images": tmp_path / "run/images/00000", "quarantine": tmp_path / "run/q/a.parquet"},
    )
    assert shared_folder(run) == tmp_path / "run"


def test_artifacts_that_share_only_the_root_are_refused():
    run = StepRun("export", {"dataset": Path("/a/longgrit")}, {"exports": Path("/b/exports")})
    with pytest.raises(InputError, match="no common folder"):
        shared_folder(run)


def test_a_container_gets_the_credentials_that_the_settings_need_and_no_others():
    environment = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "MERGE_KEY": "c",
        "OTHER_KEY": "d",
        "MLFLOW_TRACKING_URI": "http://mlflow.example",
        "HOME": "/home/ada",
    }
    settings = {"describer": "endpoints", "merge": {"api_key_env": "MERGE_KEY"}, "check": {}}
    given = container_environment(settings, environment)
    assert {name: given.get(name) for name in environment} == {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "MERGE_KEY": "c",
        "OTHER_KEY": None,
        "MLFLOW_TRACKING_URI": "http://mlflow.example",
        "HOME": "/tmp",
    }
    assert given["PYTHONSAFEPATH"] == "1", "a checkout's code must not stand in for the image's"


def test_a_container_may_write_the_run_s_folder_and_read_the_project_s(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    for folder, modes in ((tmp_path / "run", [True, False]), (tmp_path, [False])):
        run = StepRun("sample_grit", {}, {"grit": folder / "grit"})
        options = docker_runner(run).container_run_args
        mounts = options["mounts"]
        assert options["read_only"]
        assert options["tmpfs"] == {"/tmp": ""}
        assert [mount["ReadOnly"] for mount in mounts] == modes
        assert [mount["Target"] for mount in mounts] == list(
            dict.fromkeys([str(tmp_path), str(folder)])
        )


def test_a_container_of_training_may_write_to_the_database_of_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    run = StepRun("rollback", {}, {"promotion": tmp_path / "run" / "promotion"})
    mounts = docker_runner(run).container_run_args["mounts"]
    writable = [mount["Target"] for mount in mounts if not mount["ReadOnly"]]
    assert writable == [str(tmp_path / "run"), str(tmp_path / "runs" / "mlflow")]
    assert (tmp_path / "runs" / "mlflow").is_dir()
