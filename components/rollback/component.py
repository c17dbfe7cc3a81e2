"""The Kubeflow component of `rollback`: a shim over step.py."""

from kfp.dsl import Artifact, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def rollback(
    promotion: Output[Artifact],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Make the previous champion the champion again."""
    from components.kernel.kubeflow import run_component

    run_component(
        "rollback",
        inputs={},
        outputs={"promotion": promotion},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
