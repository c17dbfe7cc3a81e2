"""The Kubeflow component of `embed_text`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def embed_text(
    longgrit: Input[Dataset],
    text_tower: Input[Model],
    text_embeddings: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Embed every distinct caption once with the frozen text tower."""
    from components.kernel.kubeflow import run_component

    run_component(
        "embed_text",
        inputs={"longgrit": longgrit, "text_tower": text_tower},
        outputs={"text_embeddings": text_embeddings},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
