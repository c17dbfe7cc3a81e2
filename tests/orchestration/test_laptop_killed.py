"""A run whose process was killed does not stand in the way of the next, with a real Airflow."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DAG = """
from airflow.sdk import Param, dag, task

@task
def wait(params=None):
    with open(params["pipe"]) as pipe:  # until somebody writes
        pipe.read()

@task
def end(): pass

@dag(schedule=None, max_active_runs=1, params={"pipe": Param("/dev/null", type="string")})
def waiting(): wait() >> end()

waiting()
"""
LAPTOP = [sys.executable, "-m", "components.orchestration.laptop"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Any:
    """A project's folder in which one run was killed and one came after it."""
    folder = tmp_path_factory.mktemp("a place é")
    home, theirs = folder / "home", folder / "theirs"
    (home / "dags").mkdir(parents=True)
    theirs.mkdir()
    (home / "dags" / "waiting.py").write_text(DAG)
    os.mkfifo(folder / "pipe")
    environment = {
        **os.environ,
        "PIXCLIP_HOME": str(home),
        "AIRFLOW_HOME": str(theirs),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{theirs}/airflow.db",
    }
    conf = f'{{"pipe": "{folder}/pipe"}}'
    command = [*LAPTOP, "run", "--dag", "waiting", "--conf", conf]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        pipe = opened_by_a_reader(folder / "pipe", process)
        states = states_of(home)
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(pipe)
    done = subprocess.run(
        [*LAPTOP, "run", "--dag", "waiting"], env=environment, capture_output=True, text=True
    )
    return SimpleNamespace(home=home, theirs=theirs, before=states, done=done)


def opened_by_a_reader(pipe: Path, process: "subprocess.Popen[bytes]") -> int:
    """The pipe, as soon as the task reads it."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.05)


def states_of(home: Path) -> dict[str, list[tuple[str, ...]]]:
    with sqlite3.connect(home / ".cache" / "airflow" / "airflow.db") as database:
        return {
            "runs": database.execute("SELECT state FROM dag_run ORDER BY id").fetchall(),
            "tasks": database.execute(
                "SELECT t.task_id, t.state FROM task_instance t JOIN dag_run r USING (run_id) "
                "ORDER BY r.id, t.task_id DESC"
            ).fetchall(),
        }


def test_what_a_killed_run_has_left_is_ended_before_the_next_begins(world):
    assert world.before["runs"] == [("running",)]
    assert "ended a run that a killed process had left: waiting, manual__" in world.done.stdout
    assert world.done.returncode == 0, world.done.stdout
    after = states_of(world.home)
    assert after["runs"] == [("failed",), ("success",)]
    wait, end, *later = after["tasks"]
    assert wait == ("wait", "failed")
    assert end in (("end", "skipped"), ("end", "upstream_failed"))  # by us, or by Airflow in time
    assert later == [("wait", "success"), ("end", "success")]


def test_another_airflow_of_this_person_is_left_alone(world):
    assert list(world.theirs.iterdir()) == []
