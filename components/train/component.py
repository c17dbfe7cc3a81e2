"""The Kubeflow component of `train`: a shim over step.py."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def train(
    longgrit: Input[Dataset],
    text_embeddings: Input[Dataset],
    parent: Input[Model],
    checkpoint: Output[Model],
    curves: Output[Artifact],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
    stage: str = "",
) -> None:
    """Train one stage of a recipe."""
    import json

    from components.kernel.kubeflow import run_component

    if stage:  # all stages of a pipeline share the other settings
        settings = json.dumps({**json.loads(settings), "stage": stage})
    run_component(
        "train",
        inputs={"longgrit": longgrit, "text_embeddings": text_embeddings, "parent": parent},
        outputs={"checkpoint": checkpoint, "curves": curves},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
