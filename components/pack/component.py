"""The Kubeflow component of `pack`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def pack(
    captions: Input[Dataset],
    images: Input[Dataset],
    quarantines: Input[Dataset],
    longgrit: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Write the data set: WebDataset shards by split, manifest, dataset card and report page."""
    from components.kernel.kubeflow import run_component

    run_component(
        "pack",
        inputs={"captions": captions, "images": images, "quarantines": quarantines},
        outputs={"longgrit": longgrit},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
