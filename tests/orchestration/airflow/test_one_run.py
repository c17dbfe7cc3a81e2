"""Whatever fails, one Workflow and one row live, and the task ends well: faults of the server, the
network, the worker and the triggerer, with a worker that waits and with a trigger.

    python -m pytest tests/orchestration/airflow/test_one_run.py -s    # prints the table
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from components.orchestration.kubeflow import client
from tests.orchestration.airflow.kubeflow_task import Task, connect, with_pipeline
from tests.orchestration.kubeflow.kubeflow_server import Fault, KubeflowServer

pytestmark = pytest.mark.slow

REQUEST_TIMEOUT_S, STEADY_S = 0.5, 1.0


@dataclass(frozen=True)
class Case:
    """What goes wrong while a run is started or waited for."""

    name: str
    faults: tuple[Fault, ...] = ()
    kill_at: str = ""
    chooses_ids: bool = False
    num_rows: int = 1
    num_workflows: int = 1
    rotates_token: bool = False


CASES = [
    Case("nothing"),
    Case("500, nothing made", (Fault("refused"),)),
    Case("connection dropped, nothing made", (Fault("away"),)),
    Case("500 between Workflow and row", (Fault("between"),), num_workflows=2),
    Case("answer dropped, row late", (Fault("late", seconds=0.2),)),
    Case(
        "answer dropped, row later than waited for",
        (Fault("late", seconds=1.0),),
        num_rows=2,
        num_workflows=2,
    ),
    Case("answer dropped, all made", (Fault("dropped"),)),
    Case("502, all made", (Fault("after"),)),
    Case("answer slower than the time-out", (Fault("slow", seconds=1.0),)),
    Case("server restarts before it works", (Fault("restart", seconds=0.6),)),
    Case(
        "server crashes between Workflow and row", (Fault("crash", seconds=0.6),), num_workflows=2
    ),
    Case("500s while waiting", (Fault("refused", "GetRun", times=6),)),
    Case("server restarts while waiting", (Fault("restart", "GetRun", seconds=0.6),)),
    Case("time-outs while waiting", (Fault("slow", "GetRun", times=2, seconds=0.8),)),
    Case("token is rotated", rotates_token=True),
    Case("server chooses ids, answer dropped", (Fault("dropped"),), chooses_ids=True),
    Case("worker killed before the request", kill_at="before the request"),
    Case("worker killed before the answer is kept", kill_at="before the answer is kept"),
    Case("worker or triggerer killed while waiting", kill_at="while it waits"),
    Case(
        "worker killed before the answer is kept, 502 before",
        (Fault("after"),),
        kill_at="before the answer is kept",
    ),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setattr(client, "REQUEST_TIMEOUT", httpx.Timeout(REQUEST_TIMEOUT_S))
    with KubeflowServer(grace_s=0.8) as server:
        connect(monkeypatch, server)
        yield with_pipeline(server)
        assert server.violations == []


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("is_deferrable", [False, True], ids=["worker waits", "deferrable"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_workflow_and_one_row_live_whatever_fails(
    server, monkeypatch, tmp_path, case, is_deferrable
):
    server.faults = [replace(fault) for fault in case.faults]
    server.chooses_ids = case.chooses_ids
    if case.rotates_token:
        rotate_token(server, monkeypatch, tmp_path)
    task, results = Task(is_deferrable, kill_at=case.kill_at), []
    working = threading.Thread(target=lambda: results.append(task.run_until_done()), daemon=True)
    working.start()
    wait_for(lambda: len(server.live_rows) == 1 and not any(f.times for f in server.faults))
    time.sleep(STEADY_S)  # what was late has come, what was orphaned is removed
    wait_for(lambda: len(server.live_rows) == 1)
    found = (len(server.live_workflows), len(server.live_rows))
    tell(case.name, len(server.workflows), len(server.runs), *found)
    assert found == (1, 1)
    assert (len(server.runs), len(server.workflows)) == (case.num_rows, case.num_workflows)
    (row,) = server.live_rows
    assert [w.run_id for w in server.live_workflows] == [row["run_id"]]
    server.outcome = "SUCCEEDED"
    working.join(10)
    assert results[0]["run_id"] == row["run_id"]
    assert task.xcoms["kubeflow_run_url"].endswith(row["run_id"])
    assert (server.live_workflows, server.live_rows) == ([], [])


def tell(*cells: object) -> None:
    """A row of the table: the case; Workflows and rows that were made, that live."""
    print(f"| {' | '.join(map(str, cells))} |")  # noqa: T201


def rotate_token(server: KubeflowServer, patch: pytest.MonkeyPatch, folder) -> None:
    """The token of the file is refused, and a new one comes into the file meanwhile."""
    file = folder / "token"
    file.write_text("old\n")
    server.token = "new"
    connect(patch, server, token_file=str(file))
    read = client._read_token

    def read_and_rotate(server_: client.Server) -> str:
        token = read(server_)
        file.write_text("new\n")
        return token

    patch.setattr(client, "_read_token", read_and_rotate)
