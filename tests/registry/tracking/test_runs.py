"""What a run leaves in MLflow."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from components.core.errors import SettingsError
from components.registry.runs import tracked_run
from components.registry.store import TrackingError, open_client, resolve_uri


def test_a_run_keeps_parameters_curves_tags_and_files(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("hello")
    params = {"recipe": "tiny", "optimizer": {"rate": 0.1}}
    with tracked_run("train", tracking_uri=tracking_uri, tags={"stage": "1"}, params=params) as run:
        for step in range(1100):
            run.log(step, {"loss": 1 / (step + 1), "broken": float("nan")})
        run.artifact(tmp_path / "folder")
    client = open_client(tracking_uri)
    kept = client.get_run(run.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"recipe": "tiny", "optimizer.rate": "0.1"}
    assert kept.data.tags["stage"] == "1"
    history = client.get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == list(range(1100))
    assert "broken" not in kept.data.metrics
    assert [item.path for item in client.list_artifacts(run.run_id, "folder")] == [
        "folder/note.txt"
    ]
    # Files lie beside the database, not in the working folder.
    assert list((tmp_path / "tracking" / "artifacts").rglob("note.txt"))


def broken_run(tracking_uri: str, error: BaseException) -> str:
    """A run that logged one number and then ended with this error."""
    opened = tracked_run("train", tracking_uri=tracking_uri)
    run = opened.__enter__()
    run.log(1, {"loss": 2.0})
    assert not opened.__exit__(type(error), error, None)
    return run.run_id


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "FAILED"), (SystemExit(143), "KILLED")]
)
def test_how_a_run_ended_is_known(tracking_uri: str, error: BaseException, status: str) -> None:
    run_id = broken_run(tracking_uri, error)
    kept = open_client(tracking_uri).get_run(run_id)
    assert kept.info.status == status
    assert kept.data.metrics == {"loss": 2.0}


def test_a_killed_run_is_gone_on_with(tracking_uri: str) -> None:
    run_id = broken_run(tracking_uri, SystemExit(143))
    with tracked_run("train", tracking_uri=tracking_uri, run_id=run_id) as second:
        second.log(2, {"loss": 1.0})
    client = open_client(tracking_uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [p.value for p in client.get_metric_history(run_id, "loss")] == [2.0, 1.0]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_run_that_is_gone_is_begun_anew(tracking_uri: str, is_deleted: bool) -> None:
    gone = "0" * 32
    if is_deleted:
        with tracked_run("train", tracking_uri=tracking_uri) as run:
            gone = run.run_id
        open_client(tracking_uri).delete_run(gone)
    with tracked_run("train", tracking_uri=tracking_uri, run_id=gone) as run:
        assert run.run_id != gone


def test_a_setting_wins_over_the_environment_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri("") == f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert resolve_uri("") == "http://tracker:5000"
    assert resolve_uri("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"


def test_an_address_without_a_file_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"write sqlite:///runs/mlflow\.db for a database file"):
        resolve_uri("runs/mlflow.db")
    with pytest.raises(SettingsError, match="names no file"):
        resolve_uri("sqlite:///")


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = "http://me:hunter2@127.0.0.1:9"
    with pytest.raises(TrackingError, match=r"cannot open http://\*\*\*@127\.0\.0\.1") as refused:
        open_client(address)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_a_file_that_is_no_database_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database" * 1000)
    with pytest.raises(TrackingError, match="cannot open sqlite"):
        open_client(f"sqlite:///{tmp_path / 'x.db'}")


FIRST_OPENING = """
import sys
from components.registry.runs import tracked_run
with tracked_run("a", tracking_uri=sys.argv[1]) as run:
    run.log(1, {"loss": 1.0})
"""


def test_two_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    command = [sys.executable, "-c", FIRST_OPENING, uri]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert told == ["", ""], "MLflow chats"
