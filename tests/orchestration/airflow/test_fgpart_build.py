"""The DAG of FG-Part: the graph of LongGRIT's with other steps."""

import json
import os
from pathlib import Path

import pytest

from components.orchestration.airflow.operators import SourceOperator
from tests.orchestration.airflow.conftest import load_dag

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("fgpart_build.json")


@pytest.fixture(scope="module")
def fgpart():
    return load_dag("fgpart_build")


def test_the_graph_is_the_one_we_know(fgpart):
    """After a wanted change, write the new graph: `make golden` (UPDATE_GOLDEN=1)."""
    graph = {task.task_id: sorted(task.downstream_task_ids) for task in fgpart.tasks}
    text = json.dumps(graph, indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_parts_are_described_by_their_own_step_and_packed_as_fgpart(fgpart):
    describe = fgpart.get_task("annotate.describe")
    assert (describe.step, describe.outputs["captions"]) == ("describe_parts", "captions/{group}")
    assert fgpart.get_task("pack").outputs == {"longgrit": "fgpart"}
    (asset,) = fgpart.get_task("publish").outlets
    assert (asset.name, asset.uri) == ("fgpart", "pixclip://fgpart/")


@pytest.mark.parametrize(
    ("step", "outputs"),
    [
        ("sample_grit", {"grit": "grit"}),
        ("import_parts", {"grit": "grit", "quarantine": "quarantine/import_parts.parquet"}),
    ],
)
def test_a_source_that_drops_rows_writes_its_quarantine_beside_the_others(
    fgpart, step, outputs, tmp_path
):
    task = fgpart.get_task("source")
    source = SourceOperator(
        task_id="source",
        step=step,
        outputs=task.outputs,
        addresses=task.addresses,
        quarantined=task.quarantined,
        run_folder=str(tmp_path),
        params_file=str(ROOT / "params" / "fgpart.yaml"),
        overrides="{}",
    )
    run = source.step_run()
    assert run.outputs == {name: tmp_path / path for name, path in outputs.items()}
