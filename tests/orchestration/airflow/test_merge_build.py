"""The DAG that merges published data sets."""

import pytest

from components.orchestration.airflow.conf import keep_only
from tests.orchestration.airflow.conftest import load_dag, parsed


@pytest.fixture(scope="module")
def dag():
    return load_dag("merge_build")


def test_parsing_imports_nothing_heavy():
    _, heavy = parsed("merge_build")
    assert heavy == []


def test_sets_are_brought_merged_checked_and_published(dag):
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    assert graph == {
        "check_settings": ["list_sets"],
        "list_sets": ["resolve_data"],
        "resolve_data": ["merge_data"],
        "merge_data": ["check_pixclip_parts"],
        "check_pixclip_parts": ["publish"],
        "publish": [],
    }
    assert {task.task_id for task in dag.tasks if task.retries < 2} == set()
    (asset,) = dag.get_task("publish").outlets
    assert asset.name == "pixclip_parts"


@pytest.mark.parametrize("names", [["longgrit"], ["a", "a"], ["../a", "b"], ["a", 1]], ids=str)
def test_names_that_are_no_two_sets_are_refused(dag, names):
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.serialization.serialized_objects import DagSerialization

    served = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    with pytest.raises(ParamValidationError):
        served.params.deep_merge({"names": names}).validate()


def test_a_set_of_an_earlier_run_is_not_merged_again(tmp_path):
    for name in ("longgrit", "fgpart", "other"):
        (tmp_path / "datasets" / name).mkdir(parents=True)
    keep_only(str(tmp_path), "datasets", ["longgrit", "fgpart"])
    keep_only(str(tmp_path / "new"), "datasets", ["longgrit"])
    assert sorted(path.name for path in (tmp_path / "datasets").iterdir()) == ["fgpart", "longgrit"]
