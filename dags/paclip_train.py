"""Train, evaluate, register and promote PA-CLIP whenever FG-Part has a new version.

**resolve_data** → **check** → **make_tokenizer** → **init_model** → **train_parts**, a task for
each stage of the recipe → **evaluate_parts** → **register** → **promote**, which changes the
champion only if the policy is met; its report says why or why not.

A run that the asset `fgpart` starts takes the very version that was published. Another run takes
the version that `resolve_data` names in the params file or in `overrides`:

    airflow dags test paclip_train --conf '{"run_folder": "runs/parts",
      "overrides": {"resolve_data": {"repository": "runs/parts/repository"}}}'

All else is as in `pixclip_train`. The tasks are those of the Kubeflow pipeline `paclip-train`;
its graph is in `components/orchestration/kubeflow/paclip_train.py`; the environment's variable
`PACLIP_RECIPE` names the recipe, and the model's asset is `paclip`.
"""

from airflow.sdk import Asset, dag

from components.orchestration.airflow.params import TASK_DEFAULTS
from components.orchestration.airflow.pipelines import Place
from components.orchestration.airflow.training import EVALUATION, Training
from components.orchestration.kubeflow.paclip_train import PACLIP_TRAIN

TRAINING = Training(
    pipeline=PACLIP_TRAIN,
    dataset="fgpart",
    model=Asset(name="paclip", uri="pixclip://paclip/", group="pixclip"),
    variable="PACLIP_RECIPE",
    recipe="paclip_tiny",
    run_folder="runs/paclip",
    places={
        "make_tokenizer": Place({"text_tower": "text_tower"}),
        "evaluate_parts": EVALUATION,
    },
)


@dag(
    dag_display_name="Train PA-CLIP",
    schedule=[TRAINING.data],
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=TRAINING.params,
    tags=["pixclip", "training", "fgpart"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def paclip_train() -> None:
    """The pipeline's graph, here or on Kubeflow."""
    TRAINING.graph()


paclip_train()
