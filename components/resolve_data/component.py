"""The Kubeflow component of `resolve_data`: a shim over step.py."""

from kfp.dsl import Dataset, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def resolve_data(
    longgrit: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Bring a version of LongGRIT out of the DVC repository that keeps it."""
    from components.kernel.kubeflow import run_component

    run_component(
        "resolve_data",
        inputs={},
        outputs={"longgrit": longgrit},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
