"""The Kubeflow component of `init_model`: a shim over step.py."""

from kfp.dsl import Input, Metrics, Model, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def init_model(
    text_tower: Input[Model],
    parent: Output[Model],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Make the model that training starts from, of public weights or at random."""
    from components.kernel.kubeflow import run_component

    run_component(
        "init_model",
        inputs={"text_tower": text_tower},
        outputs={"parent": parent},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
