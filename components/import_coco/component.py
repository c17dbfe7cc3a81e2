"""The Kubeflow component of `import_coco`: a shim over step.py."""

from kfp.dsl import Dataset, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def import_coco(
    grit: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Make GRIT records of your own images and a COCO annotation file."""
    from components.kernel.kubeflow import run_component

    run_component(
        "import_coco",
        inputs={},
        outputs={"grit": grit},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
