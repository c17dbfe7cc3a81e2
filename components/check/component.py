"""The Kubeflow component of `check`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def check(
    checked: Input[Dataset],
    data_docs: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Check an artifact's contract as a whole and build its Data Docs."""
    from components.kernel.kubeflow import run_component

    run_component(
        "check",
        inputs={"checked": checked},
        outputs={"data_docs": data_docs},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
