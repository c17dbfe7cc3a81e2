"""The Kubeflow component of `import_grit`: a shim over step.py."""

from kfp.dsl import Dataset, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def import_grit(
    grit: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Bring GRIT's published Parquet files here, from a folder or an S3 prefix."""
    from components.kernel.kubeflow import run_component

    run_component(
        "import_grit",
        inputs={},
        outputs={"grit": grit},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
