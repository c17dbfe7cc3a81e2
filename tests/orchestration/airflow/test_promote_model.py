"""The DAG that promotes and rolls back: what it imports, and both its ways on a real registry."""

import json
from pathlib import Path

import pytest

from components.registry.models import Reference, Registry
from components.registry.promotions import PROMOTE, promotion_entry
from tests.model_registry import World, registry, tracking_uri, world
from tests.orchestration.airflow.conftest import load_dag, parsed

__all__ = ["registry", "tracking_uri", "world"]


@pytest.fixture(scope="module")
def dag():
    return load_dag("promote_model")


def test_parsing_imports_nothing_heavy():
    _, heavy = parsed("promote_model")
    assert heavy == []


def test_people_start_it_and_every_task_is_retried(dag):
    assert dag.schedule is None
    assert {task.task_id for task in dag.tasks if task.retries < 2} == set()
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    assert graph == {
        "check_settings": ["choose"],
        "choose": ["name_version", "rollback"],
        "name_version": ["promote"],
        "promote": [],
        "rollback": [],
    }
    assert all(dag.params.get_param(name).description for name in dag.params)


@pytest.mark.parametrize(
    "conf",
    [{"action": "delete"}, {"version": "1; drop"}, {"version": "0"}, {"model": "../x"},
     {"overrides": {"register": {}}}],
    ids=str,
)  # fmt: skip
def test_a_wrong_conf_is_refused(dag, conf):
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.serialization.serialized_objects import DagSerialization

    served = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    with pytest.raises(ParamValidationError):
        served.params.deep_merge(conf).validate()


def run_task(dag, task_id: str, folder: Path, **params: str) -> None:
    """A task as Airflow runs it, its templates filled in by hand."""
    task = dag.get_task(task_id).prepare_for_execution()
    filled = {name: dag.params[name] for name in dag.params} | params
    context = {"params": filled, "run_id": "manual__2026-01-01T00:00:00"}
    task.render_template_fields(context)
    task.run_folder = str(folder)
    task.execute(context)


def test_both_actions_work_on_a_registry(
    dag, world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    from components.orchestration.airflow.conf import write_registration

    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking_uri)
    world.candidate("a", num_right=20)
    with promotion_entry(registry, "pixclip") as entry:
        entry.move(PROMOTE, registry.get(Reference("pixclip", "candidate")), "a test")
    world.candidate("b", num_right=35)
    folder = world.folder / "promotions"
    write_registration(str(folder), "pixclip", "")
    run_task(dag, "promote", folder, reason="asked for")
    assert registry.get(Reference("pixclip", "champion")).number == "2"
    run_task(dag, "rollback", world.folder / "back", reason="blind to cats")
    assert registry.get(Reference("pixclip", "champion")).number == "1"
    report = json.loads((world.folder / "back/promotion/report.json").read_text())
    assert report["reason"] == "blind to cats"


def test_a_name_that_is_none_is_refused_before_a_file_is_written(tmp_path: Path):
    from airflow.sdk.exceptions import AirflowFailException

    from components.orchestration.airflow.conf import write_registration

    with pytest.raises(AirflowFailException, match="is no name of a model"):
        write_registration(str(tmp_path), "../x", "")
    assert list(tmp_path.iterdir()) == []
