"""The operator, trigger, hook and connection of Kubeflow Pipelines, one rule each."""

import asyncio
import importlib
import json
import time
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from components.core.errors import SettingsError
from components.orchestration.airflow.kubeflow import operator as operator_module
from components.orchestration.airflow.kubeflow import trigger as trigger_module
from components.orchestration.airflow.kubeflow.hook import KubeflowHook, server_of
from components.orchestration.airflow.kubeflow.operator import KubeflowPipelineOperator
from components.orchestration.airflow.kubeflow.provider import FIELDS, get_provider_info
from components.orchestration.airflow.kubeflow.trigger import RunTrigger
from tests.orchestration.airflow.kubeflow_task import (
    TIMES,
    Killed,
    Task,
    connect,
    fired,
    with_pipeline,
)
from tests.orchestration.kubeflow.kubeflow_server import KubeflowServer
from tests.orchestration.kubeflow.test_host import FAILED_NODES, POD

MODES = pytest.mark.parametrize("is_deferrable", [False, True], ids=["worker waits", "deferrable"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    with KubeflowServer(outcome="SUCCEEDED") as server:
        connect(monkeypatch, server)
        yield with_pipeline(server)
        assert server.violations == []


@MODES
def test_the_result_is_the_run_with_its_tasks_outputs_and_metrics(server, is_deferrable):
    server.task_details = [
        {
            "display_name": "train-align",
            "state": "SUCCEEDED",
            "child_tasks": [{"pod_name": POD}],
            "outputs": {"checkpoint": {"artifact_ids": ["7"]}},
        },
        {"display_name": "train-align-driver", "state": "SUCCEEDED"},
    ]
    server.logs = {POD: 'done\n[KFP] pixclip-metrics train {"loss": 0.5}\n'}
    result = Task(is_deferrable, arguments={"parameters": {"message": "hi"}}).run()
    (run_id,) = server.runs
    assert result["url"] == f"{server.url}/#/runs/details/{run_id}"
    assert result["tasks"] == {"train-align": "SUCCEEDED"}
    assert result["outputs"] == {"train-align": {"checkpoint": ["7"]}}
    assert result["metrics"] == {"train": {"loss": 0.5}}
    assert server.runs[run_id]["runtime_config"]["parameters"] == {"message": "hi"}
    assert server.runs[run_id]["display_name"].startswith("a_dag train manual__1 #1 ")


@MODES
def test_an_error_names_the_failed_task_and_ends_with_its_log(server, is_deferrable):
    server.outcome, server.task_details = "FAILED", FAILED_NODES
    server.logs = {POD: "begun\nGateError: too few\n"}
    with pytest.raises(AirflowException, match=r"at task evaluate\nbegun\nGateError: too few$"):
        Task(is_deferrable).run()


@MODES
def test_a_failed_run_is_followed_by_another_one(server, is_deferrable):
    task = Task(is_deferrable)
    server.outcome = "FAILED"
    with pytest.raises(AirflowException):
        task.run()
    server.outcome = "SUCCEEDED"
    result = task.run()
    states = [run["state"] for run in server.runs.values()]
    assert states == ["FAILED", "SUCCEEDED"]
    assert result["run_id"] == list(server.runs)[1]


def test_clearing_a_task_that_has_succeeded_starts_anew_and_a_lost_worker_does_not(server):
    task = Task(is_deferrable=False)
    first = task.run()["run_id"]
    assert task.run()["run_id"] != first
    assert len(server.runs) == 2
    kept = json.loads(task.store["kubeflow_run"])
    task.set("kubeflow_run", {**kept, "is_used": False})  # as if killed before it was noted
    task.run()
    assert len(server.runs) == 2


@MODES
def test_clearing_a_task_that_waits_stops_its_run_and_starts_another(server, is_deferrable):
    """Whatever the old try's process or trigger had time for."""
    server.outcome = ""
    task = Task(is_deferrable=False, kill_at="while it waits")
    with pytest.raises(Killed):
        task.run()
    task.is_deferrable, task.max_tries, server.outcome = is_deferrable, 3, "SUCCEEDED"
    task.run()
    assert [run["state"] for run in server.runs.values()] == ["CANCELED", "SUCCEEDED"]


def test_without_its_memory_a_task_finds_its_live_run_and_takes_no_used_one(server):
    task = Task(is_deferrable=False)
    server.outcome = ""
    with pytest.raises(AirflowException, match="has not ended in time"):
        Task(False, arguments={"timeout": timedelta(seconds=0.1)}).run()
    server.outcome = "SUCCEEDED"
    task.run()
    task.store.clear()
    task.run()
    states = [run["state"] for run in server.runs.values()]
    assert states == ["CANCELED", "SUCCEEDED", "SUCCEEDED"]


def test_no_run_is_started_beside_one_that_is_being_cancelled(server):
    server.outcome = ""
    task = Task(is_deferrable=False, arguments={"timeout": timedelta(seconds=0.1)})
    with pytest.raises(AirflowException):
        task.run()
    (first,) = server.runs.values()
    assert first["state"] == "CANCELING"
    assert len(server.live_workflows) == 1
    server.outcome, task.arguments = "SUCCEEDED", {}
    task.run()
    assert [run["state"] for run in server.runs.values()] == ["CANCELED", "SUCCEEDED"]


def test_the_time_counts_from_the_start_of_the_run_whoever_waits(server):
    server.outcome = ""
    task = Task(is_deferrable=True, arguments={"timeout": timedelta(seconds=1)})
    begun = time.monotonic()
    task.kill_at = "while it waits"
    with pytest.raises(AirflowException, match="has not ended in time, and was stopped"):
        task.run()
    assert time.monotonic() - begun < 3
    assert server.live_rows[0]["state"] == "CANCELING"


def test_wrong_parameters_fail_at_once_and_nothing_is_started(server):
    class Wrong(KubeflowPipelineOperator):
        def run_parameters(self, spec: Any) -> Any:
            raise SettingsError("train.num_rank: no such setting")

    with pytest.raises(AirflowFailException, match=r"SettingsError: train\.num_rank"):
        Task(False, kind=Wrong).run()
    assert server.workflows == []


def test_a_server_that_is_away_for_too_long_leaves_the_run_to_the_next_try(server):
    server.outcome = ""
    trigger = RunTrigger(conn_id="kubeflow_default", run_id="x", **{**TIMES, "patience_s": 0.2})
    server._http.shutdown()
    server._http.server_close()
    event = asyncio.run(fired(trigger))
    assert event["outcome"] == "unknown"
    assert "does not answer" in event["message"]
    with pytest.raises(AirflowException, match="does not answer"):
        Task(True).operator().resume(Task(True).context, event)
    server._listen()


@pytest.fixture
def started(server) -> tuple[Task, str]:
    """A deferred task, and the id of its run."""
    server.outcome = ""
    task = Task(is_deferrable=False, kill_at="while it waits")
    with pytest.raises(Killed):
        task.run()
    return task, next(iter(server.runs))


@pytest.mark.parametrize(
    ("state", "is_stopped"),
    [("deferred", False), ("failed", True), ("success", True), (None, True), ("queued", True)],
)
def test_a_trigger_stops_the_run_only_if_a_person_has_taken_the_task(
    server, started, monkeypatch, state, is_stopped
):
    """`deferred`: another triggerer has taken it over, and the task still waits."""
    monkeypatch.setattr(trigger_module, "task_state_of", lambda ti: state)
    trigger = RunTrigger(conn_id="kubeflow_default", run_id=started[1], **TIMES)
    asyncio.run(trigger.on_kill())
    assert (server.runs[started[1]]["state"] == "CANCELING") == is_stopped


def test_a_run_is_stopped_although_airflow_cancels_its_trigger_again(server, started, monkeypatch):
    def slow_state(_: Any) -> str:
        time.sleep(0.2)
        return "failed"

    async def cancel_and_wait() -> None:
        trigger = RunTrigger(conn_id="kubeflow_default", run_id=started[1], **TIMES)
        ending = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0.05)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await asyncio.gather(*trigger_module.STOPPING)

    monkeypatch.setattr(trigger_module, "task_state_of", slow_state)
    asyncio.run(cancel_and_wait())
    assert server.runs[started[1]]["state"] == "CANCELING"


@pytest.mark.parametrize(
    ("state", "is_stopped", "message"),
    [
        ("running", False, "goes on"),
        ("up_for_retry", False, "goes on"),
        ("failed", True, "was set to failed"),
        ("restarting", True, "was set to restarting"),
    ],
)
def test_a_worker_stops_the_run_only_if_a_person_has_taken_the_task(
    server, started, monkeypatch, state, is_stopped, message
):
    monkeypatch.setattr(operator_module, "task_state_of", lambda ti: state)
    task, run_id = started
    operator = task.operator()
    operator._server = KubeflowHook().server()
    operator._run_id = run_id
    with pytest.raises(AirflowException, match=message):
        operator.on_kill()
    assert (server.runs[run_id]["state"] == "CANCELING") == is_stopped
    operator.on_kill()  # once is enough


def test_stopping_a_run_that_has_ended_is_a_success(server, started, monkeypatch):
    monkeypatch.setattr(trigger_module, "task_state_of", lambda ti: "failed")
    server.end(started[1], "SUCCEEDED")
    trigger = RunTrigger(conn_id="kubeflow_default", run_id=started[1], **TIMES)
    asyncio.run(trigger.on_kill())
    assert server.runs[started[1]]["state"] == "SUCCEEDED"


def connection(host: str | None = "kubeflow", **fields: Any) -> SimpleNamespace:
    empty = {"conn_id": "kfp", "schema": None, "port": None, "extra_dejson": {}}
    return SimpleNamespace(**{**empty, "host": host, **fields})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (connection("ml-pipeline-ui.kubeflow"), "http://ml-pipeline-ui.kubeflow"),
        (connection("kfp", schema="https", port=8443), "https://kfp:8443"),
        (connection("https://kfp.example/pipeline/"), "https://kfp.example/pipeline"),
    ],
    ids=str,
)
def test_a_connection_names_the_server(given, url):
    assert server_of(given).url == url
    given.extra_dejson = {"namespace": "ada", "token_file": "/t", "instance": "a"}
    assert (server_of(given).namespace, server_of(given).token_file) == ("ada", "/t")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (connection(None), "names no host"),
        (connection(extra_dejson={"tokenfile": "x"}), "no such field: tokenfile; known are token_"),
        (connection("ftp://x"), "connection kfp: .* is no http"),
    ],
    ids=["host", "field", "scheme"],
)
def test_a_connection_that_cannot_work_is_told(given, message):
    with pytest.raises(AirflowException, match=message):
        server_of(given)


def test_two_airflows_on_one_server_do_not_share_runs(server, monkeypatch):
    for name in ("one", "two"):
        connect(monkeypatch, server, instance=name)
        Task(False).run()
    assert len(server.runs) == 2


def test_the_connection_can_be_tried(server, monkeypatch):
    assert KubeflowHook().test_connection() == (True, "Kubeflow Pipelines answers")
    server.token = "wanted"
    is_well, told = KubeflowHook().test_connection()
    assert (is_well, "no user identity" in told) == (False, True)


def test_the_distribution_says_that_it_is_a_provider():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (place,) = project["entry-points"]["apache_airflow_provider"].values()
    module, _, name = place.partition(":")
    assert getattr(importlib.import_module(module), name) is get_provider_info
    assert get_provider_info()["package-name"] == project["name"]


def test_airflow_knows_the_provider_its_connection_and_its_link():
    import jsonschema
    from airflow._shared.module_loading import import_string
    from airflow.providers_manager import ProvidersManager

    info = get_provider_info()
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(info, schema)
    (kind,) = info["connection-types"]
    assert import_string(kind["hook-class-name"]).conn_type == kind["connection-type"]
    assert set(kind["conn-fields"]) == set(FIELDS)
    assert import_string(info["extra-links"][0])().xcom_key == "kubeflow_run_url"
    behaviour = kind["ui-field-behaviour"]
    widgets = {name.replace("-", "_"): value for name, value in behaviour.items()}
    manager = ProvidersManager()
    manager._customized_form_fields_schema_validator.validate(widgets)
