"""The Kubeflow component of `register`: a shim over step.py."""

from kfp.dsl import Artifact, Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def register(
    checkpoint: Input[Model],
    evaluation: Input[Artifact],
    registration: Output[Artifact],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Register the checkpoint in the MLflow registry as the candidate."""
    from components.kernel.kubeflow import run_component

    run_component(
        "register",
        inputs={"checkpoint": checkpoint, "evaluation": evaluation},
        outputs={"registration": registration},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
