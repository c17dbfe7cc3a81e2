"""A task on Kubeflow as Airflow runs it: tries, triggers, and a store that outlives both."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from components.orchestration.airflow.kubeflow.operator import KubeflowPipelineOperator
from components.orchestration.airflow.kubeflow.trigger import RunTrigger
from components.orchestration.kubeflow import client
from tests.orchestration.kubeflow.kubeflow_server import KubeflowServer

PIPELINE = "pixclip-train"
TIMES = {"poll_s": 0.05, "settle_s": 0.4, "patience_s": 8.0}
TINY_PIPELINE = """
pipelineInfo: {name: pixclip-train}
root:
  inputDefinitions:
    parameters:
      message: {parameterType: STRING, defaultValue: hello}
"""


class Killed(BaseException):
    """The process of a task ends here."""


@dataclass
class Task:
    """A task of a DAG run. `kill_at` names the moment in which its next try is killed:
    `before the request`, `before the answer is kept`, `while it waits`."""

    is_deferrable: bool
    kill_at: str = ""
    store: dict[str, Any] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: type[KubeflowPipelineOperator] = KubeflowPipelineOperator
    max_tries: int = 2
    more: dict[str, Any] = field(default_factory=dict)  # of the context

    def get(self, key: str) -> Any:
        """As the task state store does."""
        text = self.store.get(key)
        return json.loads(text) if text else None

    def set(self, key: str, value: Any) -> None:
        """As the task state store does; a kill comes before or after."""
        if value["run_id"] and self._is_killed("before the answer is kept"):
            raise Killed
        self.store[key] = json.dumps(value)
        if not value["run_id"] and self._is_killed("before the request"):
            raise Killed

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.xcoms[key] = value
        if self._is_killed("while it waits") and not self.is_deferrable:
            raise Killed

    def _is_killed(self, moment: str) -> bool:
        if self.kill_at != moment:
            return False
        self.kill_at = ""
        return True

    @property
    def context(self) -> dict[str, Any]:
        """What `execute` is given."""
        place = {"dag_id": "a_dag", "task_id": "train", "run_id": "manual__1", "map_index": -1}
        ti = SimpleNamespace(**place, max_tries=self.max_tries, xcom_push=self.xcom_push)
        return {"ti": ti, "task_state_store": self, **self.more}

    def operator(self) -> KubeflowPipelineOperator:
        """The task as a new process has it."""
        asked = {"pipeline": PIPELINE, "deferrable": self.is_deferrable, **TIMES, **self.arguments}
        return self.kind(task_id="train", **asked)

    def run(self) -> Any:
        """One try, with the triggerer's part; gives the XCom."""
        try:
            return self.operator().execute(self.context)
        except TaskDeferred as deferred:
            trigger = serialized(deferred.trigger)
        if self._is_killed("while it waits"):
            asyncio.run(killed(trigger))
            trigger = serialized(trigger)
        event = asyncio.run(fired(trigger))
        return self.operator().resume(self.context, event)

    def run_until_done(self, num_tries: int = 3) -> Any:
        """Tries, one after another, as often as they are killed."""
        for _ in range(num_tries):
            with contextlib.suppress(Killed):
                return self.run()
        raise AssertionError("killed each time")


def serialized(trigger: Any) -> RunTrigger:
    """A trigger as the triggerer makes it from the database."""
    path, arguments = trigger.serialize()
    assert path == "components.orchestration.airflow.kubeflow.trigger.RunTrigger"
    return RunTrigger(**json.loads(json.dumps(arguments)))


async def fired(trigger: RunTrigger) -> dict[str, Any]:
    """The event of a trigger."""
    async for event in trigger.run():
        return event.payload
    raise AssertionError("no event")


async def killed(trigger: RunTrigger) -> None:
    """A triggerer that is restarted while the trigger waits."""
    waiting = asyncio.create_task(fired(trigger))
    await asyncio.sleep(0.3)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


def connect(patch: pytest.MonkeyPatch, server: KubeflowServer, **extra: str) -> None:
    """Let Airflow's connection name the server, and everything go quickly."""
    connection = {"conn_type": "kubeflow", "host": server.url, "extra": extra}
    patch.setenv("AIRFLOW_CONN_KUBEFLOW_DEFAULT", json.dumps(connection))
    patch.setattr(client, "FIRST_PAUSE_S", 0.05)


def with_pipeline(server: KubeflowServer) -> KubeflowServer:
    """A server that has the pipeline and its experiment."""
    server.add_version(PIPELINE, "first", TINY_PIPELINE)
    return server
