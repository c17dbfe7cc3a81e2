"""Promote a registered model, or roll back to the champion before, on demand.

**promote**: the candidate (or the version that is named) becomes the champion if it passes the
policy, which is the section `promote` of the params file; the report says why or why not.
**rollback**: the previous champion (or the earlier one whose version is named) becomes the champion
again; the version that is taken back is not promoted again.

Both leave an entry in the registry's promotion log, the MLflow experiment `promotions`.

    airflow dags trigger promote_model --conf '{"action": "promote"}'
    airflow dags trigger promote_model --conf '{"action": "rollback", "reason": "blind to cats"}'
"""

from typing import Any

from airflow.sdk import Param, dag, task

from components.orchestration.airflow.operators import StepOperator
from components.orchestration.airflow.params import TASK_DEFAULTS, run_params

ACTIONS = ["promote", "rollback"]
# A folder for each run, so that no report replaces an earlier one.
RUN_FOLDER = "{{ params.run_folder }}/{{ run_id | replace(':', '-') }}"

PARAMS = {
    "action": Param(
        "promote",
        enum=ACTIONS,
        title="Action",
        description="Make a version the champion by the policy, or go back to an earlier champion",
        section="Model",
    ),
    "model": Param(
        "pixclip",
        type="string",
        pattern="^[a-z0-9][a-z0-9_-]{0,63}$",
        title="Model",
        description="Name in the registry",
        section="Model",
    ),
    "version": Param(
        "",
        type="string",
        pattern="^([1-9][0-9]{0,8})?$",
        title="Version",
        description="Number; empty: the candidate is promoted, the previous champion comes back",
        section="Model",
    ),
    "reason": Param(
        "",
        type="string",
        title="Reason",
        description="Why, for the promotion log",
        section="Model",
    ),
    **run_params("runs/promotions", "params/pixclip.yaml", ACTIONS),
}


@task
def check_settings(params: Any = None, dag_run: Any = None) -> None:
    """Refuse wrong settings now."""
    from components.orchestration.airflow.conf import refuse_wrong_conf

    refuse_wrong_conf(ACTIONS, PARAMS, params, dag_run.conf or {})


@task.branch
def choose(params: Any = None) -> str:
    """The first task of the action."""
    return {"promote": "name_version", "rollback": "rollback"}[params["action"]]


@task
def name_version(folder: str, params: Any = None) -> None:
    """Name the version that is to be judged."""
    from components.orchestration.airflow.conf import write_registration

    write_registration(folder, params["model"], params["version"])


def promote() -> StepOperator:
    """The policy's word, and the new champion."""
    return StepOperator(
        task_id="promote",
        step="promote",
        inputs={"registration": "registration"},
        outputs={"promotion": "promotion"},
        settings={"reason": "{{ params.reason }}"},
        run_folder=RUN_FOLDER,
        page="promotion/report.html",
    )


def rollback() -> StepOperator:
    """The earlier champion."""
    names = ("model", "version", "reason")
    return StepOperator(
        task_id="rollback",
        step="rollback",
        outputs={"promotion": "promotion"},
        settings={name: f"{{{{ params.{name} }}}}" for name in names},
        run_folder=RUN_FOLDER,
    )


@dag(
    dag_display_name="Promote or roll back a model",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["pixclip", "registry"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def promote_model() -> None:
    """A decision, and what it does to the registry."""
    choice, named = choose(), name_version(RUN_FOLDER)
    check_settings() >> choice >> [named, rollback()]
    named >> promote()


promote_model()
