"""The Kubeflow component of `segment`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("annotate"), install_kfp_package=False)
def segment(
    candidates: Input[Dataset],
    images: Input[Dataset],
    regions: Output[Dataset],
    quarantine: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Give every region a mask: the record's own, SAM's, GrabCut's, or the box itself."""
    from components.kernel.kubeflow import run_component

    run_component(
        "segment",
        inputs={"candidates": candidates, "images": images},
        outputs={"regions": regions, "quarantine": quarantine},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
