"""The DAG as a whole: what it imports, promises and refuses."""

import json
import os
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from components.orchestration.airflow.builds import MAPPED_OUTPUTS
from components.orchestration.airflow.operators import WantedOperator
from tests.orchestration.airflow.conftest import parsed

GOLDEN = Path(__file__).with_name("longgrit_build.json")


def test_parsing_takes_less_than_a_second_and_imports_nothing_heavy():
    seconds, heavy = parsed("longgrit_build")
    assert heavy == []
    assert seconds < 1


def test_the_graph_is_the_one_we_know(dag):
    """After a wanted change, write the new graph: `make golden` (UPDATE_GOLDEN=1)."""
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    text = json.dumps(graph, indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_every_task_is_retried_and_the_dag_explains_itself(dag):
    assert {task.task_id for task in dag.tasks if task.retries < 2} == set()
    assert {"pixclip", "data"} <= set(dag.tags)
    assert "**source** → **select**" in dag.doc_md
    assert all(dag.params.get_param(name).description for name in dag.params)


def test_publish_has_the_asset_as_outlet(dag):
    (asset,) = dag.get_task("publish").outlets
    assert (asset.name, asset.uri) == ("longgrit", "pixclip://longgrit/")


def test_the_heavy_steps_are_mapped_over_groups(dag):
    mapped = {task.task_id for task in dag.tasks if task.is_mapped}
    in_groups = {
        task.task_id for task in dag.tasks if task.get_closest_mapped_task_group() is not None
    }
    annotated = {"annotate.segment", "annotate.describe"}
    assert mapped | in_groups == {"ingest", *annotated, "hard_negatives"}


@pytest.mark.parametrize(("wanted", "packed"), [(False, "captions"), (True, "contrasted")])
def test_wrong_captions_are_made_and_packed_only_if_a_run_wants_them(dag, wanted, packed):
    assert not dag.params["hard_negatives"]
    task = dag.get_task("pack")
    context = {"params": {"hard_negatives": wanted}}
    assert task.render_template(task.inputs["captions"], context) == packed
    operator = WantedOperator(
        task_id="one", step="make_hard_negatives", parameter="hard_negatives", outputs={}
    )
    operator.wanted = operator.render_template(operator.wanted, context)
    if not wanted:
        with pytest.raises(AirflowSkipException):
            operator.execute({})
    assert operator.wanted == ("true" if wanted else "false")
    assert task.trigger_rule == "none_failed"


def test_no_step_writes_quarantine_after_it_was_packed(dag):
    later = {"pack", *dag.get_task("pack").get_flat_relative_ids(upstream=False)}
    for task_id in later - {"check_settings", "list_groups"}:
        outputs = dag.get_task(task_id).outputs.values()
        assert not [path for path in outputs if path.startswith("quarantine")], task_id


@pytest.mark.parametrize(
    "conf",
    [
        {"source": "laion"},
        {"backend": "slurm"},
        {"run_folder": ""},
        {"run_folder": 3},
        {"overrides": {"no_such_step": {}}},
        {"overrides": {"select": 3}},
        {"overrides": "select"},
    ],
    ids=str,
)
def test_a_wrong_conf_is_refused(served_dag, conf):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        served_dag.params.deep_merge(conf).validate()


def test_the_trigger_form_gets_defaults_types_and_sections(served_dag):
    params = served_dag.params.deep_merge({"overrides": {"sample_grit": {"num_scenes": 6}}})
    params.validate()
    assert params["source"] == "sample_grit"
    schemas = {name: served_dag.params.get_param(name).schema for name in served_dag.params}
    assert schemas["source"]["enum"] == ["sample_grit", "import_grit", "import_coco"]
    assert all(schema["title"] and schema["section"] for schema in schemas.values())


def test_what_every_mapped_task_writes_is_known_to_the_task_that_lists_the_groups(dag):
    written = {
        path
        for task in dag.tasks
        for path in (getattr(task, "partial_kwargs", vars(task)).get("outputs") or {}).values()
        if "{group}" in path
    }
    assert written == set(MAPPED_OUTPUTS)
