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

from airflow.sdk import Asset, dag

from components.orchestration.airflow.params import TASK_DEFAULTS
from components.orchestration.airflow.pipelines import Place
from components.orchestration.airflow.training import EVALUATION, Training
from components.orchestration.airflow_home import GPU_POOL
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN

TRAINING = Training(
    pipeline=PIXCLIP_TRAIN,
    dataset="longgrit",
    model=Asset(name="pixclip", uri="pixclip://model/", group="pixclip"),
    variable="PIXCLIP_RECIPE",
    recipe="tiny",
    run_folder="runs/pixclip",
    places={
        "adapt_text": Place({"text_tower": "text_tower"}, pool=GPU_POOL),
        "embed_text": Place({"text_embeddings": "text_embeddings"}, pool=GPU_POOL),
        "evaluate": EVALUATION,
    },
)


@dag(
    dag_display_name="Train PixCLIP",
    schedule=[TRAINING.data],
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=TRAINING.params,
    tags=["pixclip", "training", "longgrit"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def pixclip_train() -> None:
    """The pipeline's graph, here or on Kubeflow."""
    TRAINING.graph()


pixclip_train()
