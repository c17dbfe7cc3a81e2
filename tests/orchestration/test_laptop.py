"""The laptop runner keeps to its own home, and tells what it cannot take before it starts."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.core.process import WAITING_THREADS
from components.orchestration import airflow_home, laptop
from components.orchestration.airflow_home import (
    AirflowError,
    UnfinishedRun,
    airflow_environment,
    prepare,
    unfinished_runs,
)
from components.orchestration.home import project_home
from components.orchestration.live import Mark, alive, living

FOREIGN = {
    "AIRFLOW_HOME": "/theirs",
    "AIRFLOW_CONFIG": "/theirs/airflow.cfg",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://theirs",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "echo postgresql://theirs",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW_CONN_AWS": "aws://theirs",
    "_AIRFLOW_WWW_USER_CREATE": "true",
    "_KFP_RUNTIME": "true",
    "PYTHONPATH": "/theirs",
    "VIRTUAL_ENV": "/theirs",
    "GIT_DIR": "/theirs/.git",
    "GIT_INDEX_FILE": "/theirs/index",
    "DVC_ROOT": "/theirs",
    "PYTHONSTARTUP": "/theirs/startup.py",
}
HOLDER = """
import sys, time
from pathlib import Path
from components.orchestration.home import project_home
from components.orchestration.live import Mark, alive
with alive(Path(sys.argv[1]), Mark("run", dag_id="d", logical_date="2026-01-01T00:00:00+00:00")):
    print("held", flush=True)
    time.sleep(60)
"""
DYING = """
import subprocess, sys
from pathlib import Path
from components.orchestration.home import project_home
from components.orchestration.live import Mark, alive
with alive(Path(sys.argv[1]), Mark("run")) as file:
    child = subprocess.Popen(["sh", "-c", "read line; sleep 0.3"], pass_fds=[file.descriptor])
    print(child.pid, flush=True)
    child.wait()
"""
LEADER = """
import os, subprocess, sys, time
from pathlib import Path
from components.orchestration.home import project_home
from components.orchestration.live import Mark, alive
with alive(Path(sys.argv[1]), Mark("serve")) as file:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    file.lead(child.pid)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_plugins_holds_the_pages():
    folder = airflow_environment(project_home())["AIRFLOW__CORE__PLUGINS_FOLDER"]
    assert (Path(folder) / "pages.py").is_file()


def test_nothing_of_another_airflow_is_in_the_environment(tmp_path, monkeypatch):
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    environment = airflow_environment(tmp_path)
    assert [f"{name}={value}" for name, value in environment.items() if "theirs" in value] == []
    assert environment["AIRFLOW_HOME"] == str(tmp_path / ".cache" / "airflow")
    assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow.example", "the way to name a server"
    assert "AIRFLOW__CORE__EXECUTOR" not in environment
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD" not in environment


def test_the_threads_of_airflow_s_tasks_sleep_while_they_wait(tmp_path, monkeypatch):
    for name in WAITING_THREADS:
        monkeypatch.delenv(name, raising=False)
    assert WAITING_THREADS.items() <= airflow_environment(tmp_path).items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONIOENCODING", "latin-1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONINSPECT", "1"),
    ],
)
def test_how_another_program_of_python_runs_is_not_how_airflow_runs(
    tmp_path, monkeypatch, name, value
):
    monkeypatch.setenv(name, value)
    assert name not in airflow_environment(tmp_path)


def test_places_are_this_clone_s_whatever_another_one_s_airflow_cfg_says(tmp_path):
    environment = airflow_environment(tmp_path)
    places = [value for name, value in environment.items() if name.startswith("AIRFLOW__")]
    assert sum(str(tmp_path) in value for value in places) == 5
    assert str(Path(laptop.__file__).parents[2]) in environment["PYTHONPATH"].split(os.pathsep)


def test_airflow_talks_to_itself_past_a_proxy(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intern.example")
    monkeypatch.delenv("no_proxy", raising=False)
    environment = airflow_environment(tmp_path, port=8123)
    assert environment["NO_PROXY"] == "intern.example,localhost,127.0.0.1"
    assert environment["no_proxy"] == "localhost,127.0.0.1"
    server = environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert server == "http://127.0.0.1:8123/execution/"


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ("{'run_folder': 'x'}", "is not JSON"),
        ("run_folder=x", "is not JSON"),
        ("", "is not JSON"),
        ('{"a": 1} x', "is not JSON"),
        ('["run_folder"]', "no object"),
        ('"x"', "no object"),
        ("null", "no object"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"overrides": {"x": {"b": 1, "b": 2}}}', "'b' is there twice"),
        ('{"a": NaN}', "NaN"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_conf_that_no_run_can_take_is_told_before_anything_starts(
    tmp_path, monkeypatch, conf, reason
):
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    done = CliRunner().invoke(laptop.main, ["run", "--conf", conf])
    assert done.exit_code == 2
    assert reason in done.output
    assert "run_folder" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / ".cache").write_text("a file")
    with pytest.raises(AirflowError, match=r"cannot write Airflow's folder .*PIXCLIP_HOME"):
        prepare(airflow_environment(tmp_path))


def test_a_database_of_a_killed_preparation_is_made_anew(tmp_path, monkeypatch):
    folder = tmp_path / ".cache" / "airflow"
    folder.mkdir(parents=True)
    for name in ("airflow.db", "airflow.db-wal", "airflow.db.new", "airflow.cfg"):
        (folder / name).write_text("half")
    monkeypatch.setattr(airflow_home, "airflow_command", fake_airflow)
    prepare(airflow_environment(tmp_path))
    assert (folder / "airflow.db").read_text() == "migrated pooled "
    assert sorted(path.suffix for path in folder.glob("airflow.*")) == [".db"]


def test_a_database_of_an_earlier_airflow_is_copied_before_it_is_changed(tmp_path, monkeypatch):
    folder = tmp_path / ".cache" / "airflow"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "airflow.db") as old:
        old.execute("CREATE TABLE runs (id)")
    (folder / ".prepared-1.2.3").touch()
    (folder / "airflow.cfg").write_text("with a key")
    monkeypatch.setattr(airflow_home, "airflow_command", lambda *_: ["false"])
    with pytest.raises(AirflowError, match=r"airflow db migrate.*prepare\.log"):
        prepare(airflow_environment(tmp_path))
    assert (folder / "airflow.cfg").read_text() == "with a key"
    monkeypatch.setattr(airflow_home, "airflow_command", lambda *_: ["true"])
    with alive(folder / "live", Mark("serve")), pytest.raises(AirflowError, match="in use"):
        prepare(airflow_environment(tmp_path))
    prepare(airflow_environment(tmp_path))
    with sqlite3.connect(folder / "airflow.db") as new:
        assert new.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def fake_airflow(*arguments: str) -> list[str]:
    word = "migrated" if "migrate" in arguments else "pooled"
    place = '"${AIRFLOW__DATABASE__SQL_ALCHEMY_CONN#sqlite:///}"'
    return ["sh", "-c", f"printf '{word} ' >> {place}"]


@pytest.fixture
def holder(tmp_path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds a file, as a run in another terminal does."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_of_another_terminal_is_alive_until_it_is_killed(tmp_path, holder):
    assert [(mark.kind, mark.pid, mark.dag_id) for mark in living(tmp_path)] == [
        ("run", holder.pid, "d")
    ]
    holder.kill()
    holder.wait()
    assert living(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_child_of_a_killed_run_is_waited_for(tmp_path):
    command = [sys.executable, "-c", DYING, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        assert len(living(tmp_path)) == 1
        process.kill()
        process.wait()
        process.stdin.close()  # by which the child begins to end
        assert living(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"of": "another version"}'])
def test_a_file_that_was_half_written_stands_for_no_process(tmp_path, text):
    (tmp_path / "1-2.json").write_text(text)
    assert living(tmp_path) == []


def test_what_a_killed_server_has_left_is_ended(tmp_path):
    command = [sys.executable, "-c", LEADER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        group = int(process.stdout.readline())
        assert living(tmp_path) != []
        os.killpg(group, 0)
        process.kill()
    assert living(tmp_path) == []
    assert is_gone(group)


def test_a_group_that_took_over_the_number_of_a_dead_one_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as theirs:
        with alive(tmp_path, Mark("serve")) as file:
            file.lead(theirs.pid)
            content = json.loads(file.path.read_text())
        for change in ({"group_began": content["group_began"] - 1}, {"boot": "another"}):
            (tmp_path / "1-2.json").write_text(json.dumps(content | change))
            assert living(tmp_path) == []
            assert theirs.poll() is None
        theirs.send_signal(signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have asked for its end yet."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


ROWS = [
    ("d", "dead", "2026-01-01 00:00:00.000001", "2026-01-01 00:00:01", "running", "TEST"),
    ("d", "live", "2026-01-01 00:00:00", "2026-01-01 00:00:01", "running", "TEST"),
    ("d", "ended", "2026-01-01 00:00:00", "2026-01-01 00:00:01", "success", "TEST"),
    ("d", "scheduled", None, "2026-01-01 00:00:01", "running", "UI"),
    ("e", "undated", None, "2026-01-01 00:00:09", "queued", "TEST"),
]


@pytest.fixture
def database(tmp_path) -> Path:
    """The columns of Airflow's table of runs that are read."""
    path = tmp_path / "airflow.db"
    names = "dag_id, run_id, logical_date, created_at, state, triggered_by"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE dag_run ({names})")
        connection.executemany("INSERT INTO dag_run VALUES (?, ?, ?, ?, ?, ?)", ROWS)
    return path


def ids_of(runs: list[UnfinishedRun]) -> list[str]:
    return [run.run_id for run in runs]


def test_only_runs_of_the_laptop_runner_may_be_ended(database):
    assert ids_of(unfinished_runs(database)) == ["dead", "live", "undated"]


def test_the_run_of_a_living_process_is_known_by_its_date(database):
    mark = Mark("run", dag_id="d", logical_date="2026-01-01T00:00:00+00:00")
    assert [run.may_be_of(mark) for run in unfinished_runs(database)] == [False, True, False]


def test_a_living_command_may_be_that_of_every_later_run(database):
    runs = unfinished_runs(database)
    began_s = runs[0].created.timestamp() + 5
    assert [run.may_be_of(Mark("command", began_s=began_s)) for run in runs] == [
        False,
        False,
        True,
    ]


def test_a_damaged_database_is_told_with_what_to_do(tmp_path):
    (tmp_path / "airflow.db").write_text("no database" * 1000)
    with pytest.raises(AirflowError, match=r"airflow\.db cannot be read: .*remove it"):
        unfinished_runs(tmp_path / "airflow.db")
