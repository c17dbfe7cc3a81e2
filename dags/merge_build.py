"""Make one data set of several that were published, with one split everywhere.

**resolve_data**, a task for each set → **merge_data** → **check** → **publish**.

`names` are those of the sets in the repository (`publish.name`); the params file and `overrides`
say where it is. What is merged by default is LongGRIT and FG-Part, on which one model learns to
answer for any region, from a whole image to a beak (the recipe `pixclip_parts`).

    airflow dags test merge_build --conf '{"run_folder": "runs/both"}'
    pixclip pipeline run pixclip-train --local --set resolve_data.name=pixclip_parts
"""

from typing import Any

from airflow.sdk import Asset, Param, dag, task

from components.orchestration.airflow.builds import check
from components.orchestration.airflow.operators import PublishOperator, StepOperator
from components.orchestration.airflow.params import TASK_DEFAULTS, run_params

STEPS = ["resolve_data", "merge_data", "check", "publish"]
MERGED = "pixclip_parts"
PARAMS = {
    "names": Param(
        ["longgrit", "fgpart"],
        type="array",
        items={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        minItems=2,
        uniqueItems=True,
        title="Data sets",
        description="Names of the published sets that are merged",
        section="Source",
    ),
    **run_params("runs/both", "params/merge.yaml", STEPS),
}


@task
def check_settings(params: Any = None, dag_run: Any = None) -> None:
    """Refuse wrong settings now."""
    from components.orchestration.airflow.conf import refuse_wrong_conf

    refuse_wrong_conf(STEPS, PARAMS, params, dag_run.conf or {})


@task
def list_sets(params: Any = None) -> list[dict[str, Any]]:
    """The sets over which bringing is mapped."""
    from components.orchestration.airflow.conf import keep_only

    keep_only(params["run_folder"], "datasets", params["names"])
    return [{"group": name, "settings": {"name": name}} for name in params["names"]]


def merge() -> StepOperator:
    """One data set of all."""
    return StepOperator(
        task_id="merge_data",
        step="merge_data",
        inputs={"datasets": "datasets"},
        outputs={"dataset": MERGED, "quarantine": "quarantine/merge_data.parquet"},
        page=f"{MERGED}/report.html",
    )


def publish() -> PublishOperator:
    """A version of it under DVC."""
    asset = Asset(name=MERGED, uri=f"pixclip://{MERGED}/", group="pixclip")
    return PublishOperator(
        task_id="publish",
        inputs={"dataset": MERGED},
        outputs={"publication": "publication"},
        outlets=[asset],
    )


@dag(
    dag_display_name="Merge data sets",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=PARAMS,
    tags=["pixclip", "data"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def merge_build() -> None:
    """One task a component, in the order of the data."""
    sets = list_sets()
    # On this machine: the repository may be any folder of it.
    brought = StepOperator.partial(
        task_id="resolve_data",
        step="resolve_data",
        outputs={"dataset": "datasets/{group}"},
        backend="local",
        map_index_template="{{ task.group }}",
    ).expand_kwargs(sets)
    check_settings() >> sets
    brought >> merge() >> check("longgrit", at=MERGED) >> publish()


merge_build()
