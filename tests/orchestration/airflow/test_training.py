"""The DAGs that train: what they import, promise and refuse, and which data they take."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from components.core.step import load_step
from components.orchestration.airflow import operators as step_module
from components.orchestration.airflow.operators import ResolveOperator, StepOperator
from components.orchestration.airflow.pipelines import SubmitOperator
from components.orchestration.kubeflow.paclip_train import PACLIP_TRAIN
from components.orchestration.kubeflow.pipeline import Pipeline
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN
from tests.orchestration.airflow.conftest import as_served, load_dag, parsed
from tests.orchestration.airflow.kubeflow_task import Task, connect
from tests.orchestration.airflow.test_operators import FakeBackend
from tests.orchestration.kubeflow.kubeflow_server import KubeflowServer

FOLDER = Path(__file__).parent
PIPELINE = FOLDER.parent / "kubeflow" / "pixclip-train.yaml"
MODEL = Asset(name="pixclip", uri="pixclip://model/")
PUBLICATION = {"repository": "/data/versions", "name": "longgrit", "git_commit": "a" * 40}


@dataclass(frozen=True)
class Known:
    """What is known of a DAG that trains."""

    dag_id: str
    pipeline: Pipeline
    built_by: str
    dataset: str
    model: str
    checkpoints: frozenset[str]
    recipe: tuple[str, str, str]  # variable, another recipe, its only stage


DAGS = [
    Known(
        "pixclip_train", PIXCLIP_TRAIN, "longgrit_build", "longgrit", "pixclip",
        frozenset({"checkpoint", "stages/align/checkpoint"}),
        ("PIXCLIP_RECIPE", "pixclip_b16_paper", "regions"),
    ),
    Known(
        "paclip_train", PACLIP_TRAIN, "fgpart_build", "fgpart", "paclip",
        frozenset({"checkpoint"}), ("PACLIP_RECIPE", "paclip_b16_stage2", "fgpart"),
    ),
]  # fmt: skip


@pytest.fixture(scope="module", params=DAGS, ids=lambda known: known.dag_id)
def known(request) -> Known:
    return request.param


@pytest.fixture(scope="module")
def dag(known) -> Any:
    return load_dag(known.dag_id)


def steps_of(dag: Any) -> dict[str, StepOperator]:
    return {task.task_id: task for task in dag.tasks if isinstance(task, StepOperator)}


@pytest.mark.parametrize("backend", ["", "kubeflow"])
def test_parsing_takes_less_than_a_second_and_imports_nothing_heavy(monkeypatch, known, backend):
    monkeypatch.setenv("PIXCLIP_BACKEND", backend)
    seconds, heavy = parsed(known.dag_id)
    assert heavy == []
    assert seconds < 1


def test_the_graph_is_the_one_we_know(dag):
    """After a wanted change, write the new graph: `make golden` (UPDATE_GOLDEN=1)."""
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    text = json.dumps(graph, indent=1, sort_keys=True) + "\n"
    golden = FOLDER / f"{dag.dag_id}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text


def test_it_starts_when_the_data_set_has_a_new_version(dag, known):
    ((asset, uri),) = [(asset.name, asset.uri) for asset in dag.timetable.asset_condition.objects]
    assert (asset, uri) == (known.dataset, f"pixclip://{known.dataset}/")
    (published,) = load_dag(known.built_by).get_task("publish").outlets
    assert (published.name, published.uri) == (asset, uri)


def test_every_task_is_retried_and_the_dag_explains_itself(dag):
    assert {task.task_id for task in dag.tasks if task.retries < 2} == set()
    assert {"pixclip", "training"} <= set(dag.tags)
    assert "**resolve_data** → **check**" in dag.doc_md
    params = {name: dag.params.get_param(name) for name in dag.params}
    assert all(param.description and param.schema["section"] for param in params.values())


def test_its_steps_are_those_of_the_kubeflow_pipeline(dag, known):
    assert {task.step for task in steps_of(dag).values()} == set(known.pipeline.steps)


def test_every_artifact_is_made_before_it_is_read(dag, known):
    made: set[str] = set()
    for task in dag.topological_sort():
        if isinstance(task, StepOperator):
            assert set(task.inputs.values()) <= made, task.task_id
            made |= set(task.outputs.values())
    assert {"evaluation", "promotion", *known.checkpoints} <= made


def test_steps_with_a_gpu_wait_for_a_slot_of_its_pool(dag):
    for name, task in steps_of(dag).items():
        assert (task.pool == "gpu") == (load_step(task.step).gpus > 0), name


def test_another_recipe_has_other_stages(known, monkeypatch):
    variable, recipe, stage = known.recipe
    monkeypatch.setenv(variable, recipe)
    tasks = steps_of(load_dag(known.dag_id))
    task_id = f"{known.pipeline.trains}_{stage}"
    assert [name for name in tasks if name.startswith("train")] == [task_id]
    assert tasks[task_id].settings == {"recipe": recipe, "stage": stage}
    assert tasks[task_id].outputs["checkpoint"] == "checkpoint"
    assert tasks["init_model"].settings == {"recipe": recipe}


@pytest.mark.parametrize(
    "conf",
    [{"backend": "slurm"}, {"run_folder": ""}, {"overrides": {"select": {}}}, {"overrides": "x"}],
    ids=str,
)
def test_a_wrong_conf_is_refused(dag, conf):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        as_served(dag).params.deep_merge(conf).validate()


def test_a_run_cannot_take_another_recipe_than_its_tasks():
    from components.orchestration.airflow.conf import refuse_fixed

    fixed = {"train": {"recipe", "stage"}}
    refuse_fixed({"train": {"num_ranks": 1}}, fixed, "PIXCLIP_RECIPE")
    with pytest.raises(AirflowFailException, match=r"train\.recipe: .* PIXCLIP_RECIPE"):
        refuse_fixed({"train": {"recipe": "pixclip_l14"}}, fixed, "PIXCLIP_RECIPE")


@pytest.fixture
def resolve(tmp_path, monkeypatch) -> SimpleNamespace:
    """The task that brings the data, with a backend that notes what it is asked."""
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text("resolve_data: {revision: v1, uri: old}\n")
    backend = FakeBackend()
    monkeypatch.setattr(step_module, "open_backend", lambda name: backend)
    task = ResolveOperator(
        task_id="resolve_data",
        outputs={"dataset": "dataset/longgrit"},
        run_folder="runs/x",
        params_file="params.yaml",
        overrides="{}",
    )
    return SimpleNamespace(task=task, backend=backend)


def event(day: int, **extra: str) -> SimpleNamespace:
    return SimpleNamespace(extra=extra, timestamp=datetime(2026, 1, day, tzinfo=UTC))


def test_a_run_that_the_asset_starts_takes_the_version_that_was_published(resolve):
    events = {"longgrit": [event(2, **PUBLICATION), event(1, **{**PUBLICATION, "name": "old"})]}
    resolve.task.execute({"triggering_asset_events": events})
    assert resolve.backend.runs[0].settings == {
        "repository": "/data/versions",
        "name": "longgrit",
        "revision": "a" * 40,
        "uri": "",
    }


def test_the_server_of_the_published_version_is_the_one_that_is_asked(resolve):
    server = "http://storage.example:9000"
    events = {"longgrit": [event(2, **PUBLICATION, endpoint_url=server)]}
    resolve.task.execute({"triggering_asset_events": events})
    assert resolve.backend.runs[0].settings["endpoint_url"] == server


@pytest.mark.parametrize("events", [{}, {"longgrit": [event(1)]}], ids=["none", "by hand"])
def test_another_run_takes_the_version_of_the_settings(resolve, events):
    resolve.task.execute({"triggering_asset_events": events})
    assert resolve.backend.runs[0].settings == {"revision": "v1", "uri": "old"}


@pytest.fixture
def submitting(known, monkeypatch) -> Any:
    """The DAG of a deployment whose pipelines run on Kubeflow."""
    monkeypatch.setenv("PIXCLIP_BACKEND", "kubeflow")
    return load_dag(known.dag_id)


def test_on_kubeflow_one_task_submits_the_pipeline_after_the_checks(submitting, known):
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in submitting.tasks}
    assert graph == {"check_settings": ["train"], "train": []}
    train = submitting.get_task("train")
    assert (train.pipeline, train.deferrable) == (known.pipeline.name, True)
    assert {task.task_id for task in submitting.tasks if task.retries < 2} == set()
    assert list(submitting.params) == ["overrides"]


def test_the_model_s_asset_has_an_event_wherever_it_was_trained(dag, known, submitting):
    for one, task_id in ((dag, "promote"), (submitting, "train")):
        assert [asset.name for asset in one.get_task(task_id).outlets] == [known.model]


def test_the_submitted_run_takes_the_published_version_and_the_run_s_overrides(monkeypatch):
    with KubeflowServer(outcome="SUCCEEDED") as server:
        connect(monkeypatch, server)
        server.add_version("pixclip-train", "first", PIPELINE.read_text())
        overrides = {"train": {"num_workers": 7}, "resolve_data": {"name": "other"}}
        arguments = {"overrides": json.dumps(overrides), "outlets": [MODEL]}
        task = Task(is_deferrable=False, kind=SubmitOperator, arguments=arguments)
        events = {"longgrit": [event(2, **PUBLICATION)]}
        outlets = {MODEL: SimpleNamespace(extra={})}
        task.more = {"triggering_asset_events": events, "outlet_events": outlets}
        result = task.run()
        (run,) = server.runs.values()
        assert server.violations == []
    sent = {k: json.loads(v) for k, v in run["runtime_config"]["parameters"].items()}
    assert set(sent) == {"train", "resolve_data"}
    assert sent["train"]["num_workers"] == 7
    resolve = sent["resolve_data"]
    assert (resolve["name"], resolve["revision"]) == ("longgrit", "a" * 40)
    assert outlets[MODEL].extra["run_id"] == result["run_id"] == run["run_id"]


def test_wrong_overrides_of_a_submitted_run_fail_before_anything_starts(monkeypatch):
    with KubeflowServer() as server:
        connect(monkeypatch, server)
        server.add_version("pixclip-train", "first", PIPELINE.read_text())
        arguments = {"overrides": '{"train": {"num_rank": 2}}'}
        with pytest.raises(AirflowFailException, match=r"train\.num_rank: no such setting"):
            Task(is_deferrable=True, kind=SubmitOperator, arguments=arguments).run()
        assert server.workflows == []
