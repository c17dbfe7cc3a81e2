"""Train, evaluate, register and promote PixCLIP whenever LongGRIT has a new version.

**resolve_data** → **check** → **adapt_text** → **embed_text** → **init_model** → **train**, a task
for each stage of the recipe → **evaluate** → **register** → **promote**, which changes the champion
only if the policy is met; its report says why or why not.

A run that the asset `longgrit` starts takes the very version that was published. Another run takes
the version that `resolve_data` names in the params file or in `overrides`:

    airflow dags test pixclip_train --conf '{"run_folder": "runs/demo",
      "overrides": {"resolve_data": {"repository": "runs/demo/repository"}}}'

Everything lies below the run folder: `checkpoint/` is the model, `evaluation/evaluation.html` shows
what it can do, `promotion/report.html` says what the policy made of it. A run over the same folder
repeats only what is missing or was made from other inputs or settings.

The recipe decides the tasks, so it belongs to the deployment: the variable `PIXCLIP_RECIPE` of the
environment. Tasks with a GPU wait for a slot of the pool `gpu`. The tasks are those of the Kubeflow
pipeline `pixclip-train`; its graph is in `components/orchestration/kubeflow/pixclip_train.py`.

With `PIXCLIP_BACKEND=kubeflow` in the environment, one task **train** submits that pipeline to the
server of the connection `kubeflow_default`, waits for it in the triggerer, and never starts it
twice (`docs/cluster.md`). The settings are then those of the version that was uploaded.

Either way the model's asset `pixclip` has a new event in the end.
"""

import os
from typing import Any

from airflow.sdk import Asset, dag, task

from components.orchestration.airflow.operators import ResolveOperator
from components.orchestration.airflow.params import TASK_DEFAULTS, run_params
from components.orchestration.airflow.pipelines import Place, SubmitOperator, Tasks
from components.orchestration.kubeflow.pixclip_train import NAME, STEPS, graph
from pixclip.training.recipes import RECIPES

LONGGRIT = Asset(name="longgrit", uri="pixclip://longgrit/", group="pixclip")
MODEL = Asset(name="pixclip", uri="pixclip://model/", group="pixclip")
RECIPE = os.environ.get("PIXCLIP_RECIPE", "tiny")
STAGES = tuple(stage.name for stage in RECIPES[RECIPE].stages)
IS_SUBMITTED = os.environ.get("PIXCLIP_BACKEND") == "kubeflow"
GPU_POOL = "gpu"
PARAMS_FILE = "params/pixclip.yaml"

RUN_PARAMS = run_params("runs/pixclip", PARAMS_FILE, STEPS)
PARAMS = {"overrides": RUN_PARAMS["overrides"]} if IS_SUBMITTED else RUN_PARAMS


def trained(stage: str) -> Place:
    """Where a stage's checkpoint lies; the last one's is the result."""
    is_last = stage == STAGES[-1]
    return Place(
        {
            "checkpoint": "checkpoint" if is_last else f"stages/{stage}/checkpoint",
            "curves": f"stages/{stage}/curves.csv",
        },
        settings={"recipe": RECIPE},
        pool=GPU_POOL,
    )


PLACES = {
    "resolve_data": Place({"dataset": "dataset/longgrit"}, kind=ResolveOperator),
    "check": Place(
        {"data_docs": "dataset/data_docs"},
        page="dataset/data_docs/index.html",
        settings={"artifact": "longgrit"},
    ),
    "adapt_text": Place({"text_tower": "text_tower"}, pool=GPU_POOL),
    "embed_text": Place({"text_embeddings": "text_embeddings"}, pool=GPU_POOL),
    "init_model": Place({"parent": "parent"}, settings={"recipe": RECIPE}),
    **{f"train_{stage}": trained(stage) for stage in STAGES},
    "evaluate": Place(
        {"evaluation": "evaluation"}, page="evaluation/evaluation.html", pool=GPU_POOL
    ),
    "register": Place({"registration": "registration"}),
    "promote": Place({"promotion": "promotion"}, page="promotion/report.html"),
}


@task
def check_settings(params: Any = None, dag_run: Any = None) -> None:
    """Refuse wrong settings now, not hours later."""
    from components.orchestration.airflow.conf import refuse_fixed, refuse_wrong_conf

    refuse_fixed(params["overrides"], {"train": {"recipe", "stage"}, "init_model": {"recipe"}})
    params = {"params_file": PARAMS_FILE, **params}
    refuse_wrong_conf(STEPS, PARAMS, params, dag_run.conf or {})


def run_here(checked: Any) -> None:
    """A task for each step, on workers of Airflow."""
    tasks = Tasks(PLACES)
    graph(tasks, STAGES, **dict.fromkeys(STEPS, ""))
    first, *_, last = tasks.operators
    checked >> first
    last.add_outlets([MODEL])


def submit(checked: Any) -> None:
    """One task for the whole pipeline, on Kubeflow."""
    checked >> SubmitOperator(task_id="train", pipeline=NAME, deferrable=True, outlets=[MODEL])


@dag(
    dag_display_name="Train PixCLIP",
    schedule=[LONGGRIT],
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=PARAMS,
    tags=["pixclip", "training", "longgrit"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def pixclip_train() -> None:
    """The pipeline's graph, here or on Kubeflow."""
    (submit if IS_SUBMITTED else run_here)(check_settings())


pixclip_train()
