"""The Kubeflow component of `adapt_text`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def adapt_text(
    longgrit: Input[Dataset],
    text_tower: Output[Model],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Make an encoder of a causal language model: masked tokens, then a contrast of captions."""
    from components.kernel.kubeflow import run_component

    run_component(
        "adapt_text",
        inputs={"longgrit": longgrit},
        outputs={"text_tower": text_tower},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
