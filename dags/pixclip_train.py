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
environment. Tasks with a GPU wait for a slot of the pool `gpu`.
"""

import os
from typing import Any

from airflow.sdk import Asset, chain, dag, task

from components.orchestration.airflow.operators import ResolveOperator, StepOperator
from components.orchestration.airflow.params import TASK_DEFAULTS, run_params
from components.orchestration.kubeflow.pixclip_train import STEPS
from pixclip.training.recipes import RECIPES

LONGGRIT = Asset(name="longgrit", uri="pixclip://longgrit/", group="pixclip")
RECIPE = os.environ.get("PIXCLIP_RECIPE", "tiny")
STAGES = tuple(stage.name for stage in RECIPES[RECIPE].stages)
GPU_POOL = "gpu"
DATA = "dataset/longgrit"

PARAMS = run_params("runs/pixclip", "params/pixclip.yaml", STEPS)


@task
def check_settings(params: Any = None, dag_run: Any = None) -> None:
    """Refuse wrong settings now, not hours later."""
    from components.orchestration.airflow.conf import refuse_fixed, refuse_wrong_conf

    refuse_fixed(params["overrides"], {"train": {"recipe", "stage"}, "init_model": {"recipe"}})
    refuse_wrong_conf(STEPS, PARAMS, params, dag_run.conf or {})


def bring_data() -> list[StepOperator]:
    """The version of the data set, checked as a whole."""
    resolve = ResolveOperator(task_id="resolve_data", outputs={"dataset": DATA})
    check = StepOperator(
        task_id="check",
        step="check",
        inputs={"checked": DATA},
        outputs={"data_docs": "dataset/data_docs"},
        settings={"artifact": "longgrit"},
        page="dataset/data_docs/index.html",
    )
    return [resolve, check]


def prepare() -> list[StepOperator | list[StepOperator]]:
    """The frozen text side, and the model that training starts from."""
    adapt = StepOperator(
        task_id="adapt_text",
        step="adapt_text",
        inputs={"dataset": DATA},
        outputs={"text_tower": "text_tower"},
        pool=GPU_POOL,
    )
    embed = StepOperator(
        task_id="embed_text",
        step="embed_text",
        inputs={"dataset": DATA, "text_tower": "text_tower"},
        outputs={"text_embeddings": "text_embeddings"},
        pool=GPU_POOL,
    )
    init = StepOperator(
        task_id="init_model",
        step="init_model",
        inputs={"text_tower": "text_tower"},
        outputs={"parent": "parent"},
        settings={"recipe": RECIPE},
    )
    return [adapt, [embed, init]]


def train(stage: str, parent: str, checkpoint: str) -> StepOperator:
    """One stage of the recipe, from the checkpoint of the stage before it."""
    return StepOperator(
        task_id=f"train_{stage}",
        step="train",
        inputs={"dataset": DATA, "text_embeddings": "text_embeddings", "parent": parent},
        outputs={"checkpoint": checkpoint, "curves": f"stages/{stage}/curves.csv"},
        settings={"recipe": RECIPE, "stage": stage},
        pool=GPU_POOL,
    )


def train_all() -> list[StepOperator]:
    """All stages; the last one's checkpoint is the result."""
    earlier = [f"stages/{stage}/checkpoint" for stage in STAGES[:-1]]
    parents, checkpoints = ["parent", *earlier], [*earlier, "checkpoint"]
    return [train(*places) for places in zip(STAGES, parents, checkpoints, strict=True)]


def judge() -> list[StepOperator]:
    """What the model can do, its place in the registry, and the policy's word."""
    evaluate = StepOperator(
        task_id="evaluate",
        step="evaluate",
        inputs={
            "dataset": DATA,
            "text_embeddings": "text_embeddings",
            "parent": "parent",
            "checkpoint": "checkpoint",
        },
        outputs={"evaluation": "evaluation"},
        page="evaluation/evaluation.html",
        pool=GPU_POOL,
    )
    register = StepOperator(
        task_id="register",
        step="register",
        inputs={"checkpoint": "checkpoint", "evaluation": "evaluation"},
        outputs={"registration": "registration"},
    )
    promote = StepOperator(
        task_id="promote",
        step="promote",
        inputs={"registration": "registration"},
        outputs={"promotion": "promotion"},
        page="promotion/report.html",
    )
    return [evaluate, register, promote]


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
    """One task a component, in the order of the data."""
    chain(check_settings(), *bring_data(), *prepare(), *train_all(), *judge())


pixclip_train()
