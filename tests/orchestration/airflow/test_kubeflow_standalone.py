"""One run, always, under a real `airflow standalone`: scheduler, triggerer, API server, workers.

Killed workers, a killed triggerer, tasks that people mark failed and clear; a server of Kubeflow
Pipelines that counts Workflows apart from rows. The settings of Airflow only shorten its waits.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from components.orchestration.airflow_home import airflow_command, airflow_environment, prepare
from components.orchestration.laptop import LOG_PORTS, _free_port
from components.orchestration.live import end_group
from tests.orchestration.airflow.kubeflow_task import with_pipeline
from tests.orchestration.kubeflow.kubeflow_server import KubeflowServer

pytestmark = pytest.mark.slow

DAGS = """
import os
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG
from components.orchestration.airflow.kubeflow.operator import KubeflowPipelineOperator

class Operator(KubeflowPipelineOperator):
    def _wait(self, client, run, memory):
        ti = self._task_instance
        place = Path(os.environ["PIXCLIP_HOME"]) / "pids" / ti.run_id
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"{os.getpid()} {os.getppid()}")
        return super()._wait(client, run, memory)

for name, is_deferrable in (("waiting", False), ("deferred", True)):
    with DAG(name, schedule=None, is_paused_upon_creation=False) as dag:
        Operator(
            task_id="train", pipeline="pixclip-train", deferrable=is_deferrable, poll_s=0.5,
            settle_s=3, patience_s=30, retries=2, retry_delay=timedelta(seconds=1),
        )
    globals()[name] = dag
"""
QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
}
LIVE, DONE = {"running", "deferred"}, {"success", "failed"}


@dataclass
class Airflow:
    """A running Airflow, and the Kubeflow server that its tasks submit to."""

    home: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]"
    api: httpx.Client
    server: KubeflowServer
    others: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, dag: str, name: str) -> "DagRun":
        """A new run of a DAG, whose task has started its run on Kubeflow and waits for it."""
        body = {"logical_date": None, "dag_run_id": name}
        wait_for(lambda: self.api.post(f"/dags/{dag}/dagRuns", json=body).is_success, "the DAG")
        run = DagRun(self, dag, name)
        state = "deferred" if dag == "deferred" else "running"
        wait_for(lambda: run.state == state and len(run.live) == 1, f"{name}: {state}")
        wait_for((self.home / "pids" / name).exists, f"the process of {name}")
        time.sleep(1)
        return run

    def is_there(self) -> bool:
        """Whether the API answers."""
        try:
            return self.api.get("/dags").is_success
        except httpx.TransportError:
            return False

    def kill_triggerer(self) -> None:
        """Kill the triggerer's processes, and start another one."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                if "triggerer" in " ".join(child.cmdline()):
                    child.kill()
        other = subprocess.Popen(
            airflow_command("triggerer"), env=self.environment, start_new_session=True
        )
        self.others.append(other)

    def end(self) -> None:
        """End all processes."""
        for process in (self.process, *self.others):
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            end_group(process.pid)


@dataclass
class DagRun:
    """A run of a DAG with its one task, here and on the server."""

    airflow: Airflow
    dag: str
    name: str

    @property
    def task(self) -> dict[str, Any]:
        path = f"/dags/{self.dag}/dagRuns/{self.name}/taskInstances/train"
        content: dict[str, Any] = self.airflow.api.get(path).json()
        return content

    @property
    def state(self) -> str:
        return str(self.task.get("state"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The run's rows on the server."""
        rows = self.airflow.server.runs.values()
        return [row for row in rows if f" {self.name} #" in row["display_name"]]

    @property
    def states(self) -> list[str]:
        return [row["state"] for row in self.rows]

    @property
    def live(self) -> list[str]:
        """The live Workflows of the run."""
        ids = {row["run_id"] for row in self.rows}
        return [w.run_id for w in self.airflow.server.live_workflows if w.run_id in ids]

    def kill_worker(self) -> None:
        """Kill the task's process and the worker that watches it."""
        file = self.airflow.home / "pids" / self.name
        for pid in map(int, file.read_text().split()):
            os.kill(pid, signal.SIGKILL)

    def mark(self, state: str) -> None:
        """As a person does on the page."""
        path = f"/dags/{self.dag}/dagRuns/{self.name}/taskInstances/train"
        self.airflow.api.patch(path, json={"new_state": state}).raise_for_status()

    def clear(self) -> None:
        """As a person does on the page."""
        body = {
            "dry_run": False,
            "dag_run_id": self.name,
            "task_ids": ["train"],
            "only_failed": False,
            "only_running": False,
            "reset_dag_runs": True,
        }
        answer = self.airflow.api.post(f"/dags/{self.dag}/clearTaskInstances", json=body)
        answer.raise_for_status()

    def finish(self) -> None:
        """Let the live run end well, and wait for the task."""
        (run_id,) = self.live
        self.airflow.server.end(run_id, "SUCCEEDED")
        wait_for(lambda: self.state in DONE, f"the end of {self.name}")
        assert self.state == "success"
        path = f"/dags/{self.dag}/dagRuns/{self.name}/taskInstances/train/links"
        links = self.airflow.api.get(path).json()["extra_links"]
        assert links == {"Kubeflow run": f"{self.airflow.server.url}/#/runs/details/{run_id}"}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home, port = tmp_path_factory.mktemp("home"), _free_port()
    (home / "dags").mkdir()
    (home / "dags" / "one_run.py").write_text(DAGS)
    with KubeflowServer() as server:
        with_pipeline(server)
        connection = json.dumps({"conn_type": "kubeflow", "host": server.url})
        environment = {
            **airflow_environment(home, port),
            **QUICK,
            **{name: str(_free_port()) for name in LOG_PORTS},
            "AIRFLOW_CONN_KUBEFLOW_DEFAULT": connection,
        }
        prepare(environment)
        with (home / "standalone.log").open("wb") as log:
            process = subprocess.Popen(
                airflow_command("standalone"),
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running = Airflow(home, environment, process, api_of(port), server)
        try:
            wait_for(running.is_there, "Airflow's API", 300)
            yield running
        finally:
            running.end()
        assert server.violations == []


def api_of(port: int) -> httpx.Client:
    """A client of Airflow's API, which everybody may use."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v2", timeout=60)


def test_a_killed_worker_s_run_is_taken_up_by_the_next_try(airflow):
    run = airflow.start("waiting", "worker_killed")
    run.kill_worker()
    wait_for(lambda: run.task["try_number"] == 2 and run.state == "running", "the next try")
    time.sleep(2)
    assert (len(run.rows), len(run.live)) == (1, 1)
    run.finish()
    assert run.states == ["SUCCEEDED"]


def test_a_killed_triggerer_s_run_is_waited_for_by_the_next_one(airflow):
    run = airflow.start("deferred", "triggerer_killed")
    airflow.kill_triggerer()
    time.sleep(12)
    assert (run.state, len(run.rows), len(run.live)) == ("deferred", 1, 1)
    run.finish()
    assert run.states == ["SUCCEEDED"]


@pytest.mark.parametrize("dag", ["waiting", "deferred"])
def test_a_task_that_is_marked_failed_stops_its_run(airflow, dag):
    run = airflow.start(dag, f"marked_failed_{dag}")
    run.mark("failed")
    wait_for(lambda: run.states[0] in ("CANCELING", "CANCELED"), "the end of the run")
    assert (len(run.rows), run.state) == (1, "failed")


@pytest.mark.parametrize("dag", ["waiting", "deferred"])
def test_a_task_that_is_cleared_while_it_waits_has_one_live_run(airflow, dag):
    run = airflow.start(dag, f"cleared_{dag}")
    first = run.rows[0]["run_id"]
    run.clear()
    wait_for(lambda: run.live not in ([], [first]), "another run")
    assert len(run.live) == 1
    assert run.states[0] in ("CANCELED", "CANCELING")
    wait_for(lambda: run.state in LIVE, "the next try")
    run.finish()
    assert run.states == ["CANCELED", "SUCCEEDED"]


def test_a_task_that_is_cleared_after_success_starts_another_run(airflow):
    run = airflow.start("deferred", "cleared_after_success")
    run.finish()
    run.clear()
    wait_for(lambda: len(run.live) == 1, "another run")
    run.finish()
    assert run.states == ["SUCCEEDED", "SUCCEEDED"]
