"""The Kubeflow component of `evaluate`: a shim over step.py."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def evaluate(
    longgrit: Input[Dataset],
    text_embeddings: Input[Dataset],
    parent: Input[Model],
    checkpoint: Input[Model],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Measure region retrieval on the benchmark, against the baselines."""
    from components.kernel.kubeflow import run_component

    run_component(
        "evaluate",
        inputs={
            "longgrit": longgrit,
            "text_embeddings": text_embeddings,
            "parent": parent,
            "checkpoint": checkpoint,
        },
        outputs={"evaluation": evaluation},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
