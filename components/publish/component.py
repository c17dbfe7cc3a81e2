"""The Kubeflow component of `publish`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def publish(
    longgrit: Input[Dataset],
    publication: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Put the data set under DVC, push it and commit the version."""
    from components.kernel.kubeflow import run_component

    run_component(
        "publish",
        inputs={"longgrit": longgrit},
        outputs={"publication": publication},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
