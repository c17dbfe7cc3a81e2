"""The image of Airflow: its DAGs, the provider for Kubeflow, and a whole build in its own tasks."""

import json
from pathlib import Path

import pytest

from tests.data.sample_grit.stand_ins import draw_photographs

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DAGS = Path(__file__).parents[2] / "dags"
# A home that can be written, beside the DAGs and settings of the image.
HOME = (
    "--env=AIRFLOW_HOME=/tmp/airflow",
    "--env=AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags",
    "--tmpfs=/tmp:size=1g",
)
LIST_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("/opt/airflow/dags", bundle_name="image")
json.dump({"errors": bag.import_errors, "tasks": {n: len(d.tasks) for n, d in bag.dags.items()}},
          open("/tmp/told.json", "w"))
"""


@pytest.mark.parametrize(("backend", "num_tasks"), [("", 11), ("kubeflow", 2)])
def test_the_dags_can_be_imported_and_submitted_to_kubeflow(run_in, backend, num_tasks):
    script = f"python -c '{LIST_DAGS}' >/dev/null 2>/tmp/log || cat /tmp/log; cat /tmp/told.json"
    options = (*HOME, f"--env=PIXCLIP_BACKEND={backend}")
    told = json.loads(run_in("airflow", "sh", "-c", script, options=options))
    assert told["errors"] == {}
    dags = (Path(__file__).parents[2] / "dags").glob("*.py")
    assert told["tasks"].keys() == {path.stem for path in dags}
    assert told["tasks"]["pixclip_train"] == num_tasks


def test_airflow_finds_the_provider_and_the_chart_s_user(run_in):
    told = run_in(
        "airflow", "/entrypoint", "airflow", "providers", "list", "--output", "json", options=HOME
    )
    names = {line["package_name"] for line in json.loads(told[told.index("[") :])}
    wanted = {"pixclip", *(f"apache-airflow-providers-{n}" for n in ("cncf-kubernetes", "fab"))}
    assert wanted <= names
    assert "uid=50000(airflow) gid=0(root)" in run_in("airflow", "id")


def test_the_tasks_of_a_build_run_in_the_image_of_airflow(run_in, tmp_path):
    photographs = draw_photographs(tmp_path / "photographs")
    scenes = {"num_scenes": 12, "width_px": 320, "height_px": 240, "photographs": "/photographs"}
    pack = {"benchmark_regions": 8, "benchmark_max_share": 0.4, "near_duplicate_distance": 0}
    conf = {
        "run_folder": "/tmp/run",
        "overrides": {
            "sample_grit": scenes,
            "pack": pack,
            "deduplicate": {"max_phash_distance": -1},
            "publish": {"repository": "/tmp/run/repository"},
        },
    }
    script = (
        "airflow db migrate >/tmp/log 2>&1 && "
        f"airflow dags test longgrit_build --conf '{json.dumps(conf)}' >>/tmp/log 2>&1 "
        "|| { tail -60 /tmp/log; exit 1; }; cat /tmp/run/publication/publication.json"
    )
    options = (*HOME, f"--volume={photographs}:/photographs:ro")
    told = json.loads(run_in("airflow", "sh", "-c", script, options=options))
    assert len(told["git_commit"]) == 40
