"""The Kubeflow component of `promote`: a shim over step.py."""

from kfp.dsl import Artifact, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("train"), install_kfp_package=False)
def promote(
    registration: Input[Artifact],
    promotion: Output[Artifact],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Make the candidate the champion, if it passes the policy."""
    from components.kernel.kubeflow import run_component

    run_component(
        "promote",
        inputs={"registration": registration},
        outputs={"promotion": promotion},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
