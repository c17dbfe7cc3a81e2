"""The Kubeflow component of `ingest`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def ingest(
    records: Input[Dataset],
    images: Output[Dataset],
    quarantine: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Download every image of a group once, check it and pack it into shards."""
    from components.kernel.kubeflow import run_component

    run_component(
        "ingest",
        inputs={"records": records},
        outputs={"images": images, "quarantine": quarantine},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
