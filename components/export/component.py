"""The Kubeflow component of `export`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def export(
    longgrit: Input[Dataset],
    exports: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Write the data set as COCO JSON (`coco/`) and Hugging Face Parquet (`huggingface/`)."""
    from components.kernel.kubeflow import run_component

    run_component(
        "export",
        inputs={"longgrit": longgrit},
        outputs={"exports": exports},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
