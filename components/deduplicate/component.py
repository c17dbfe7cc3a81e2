"""The Kubeflow component of `deduplicate`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def deduplicate(
    records: Input[Dataset],
    images: Input[Dataset],
    candidates: Output[Dataset],
    quarantine: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Drop images that another image equals or nearly equals; bring boxes to pixels."""
    from components.kernel.kubeflow import run_component

    run_component(
        "deduplicate",
        inputs={"records": records, "images": images},
        outputs={"candidates": candidates, "quarantine": quarantine},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
