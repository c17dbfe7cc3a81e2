"""The Kubeflow component of `describe`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("annotate"), install_kfp_package=False)
def describe(
    regions: Input[Dataset],
    images: Input[Dataset],
    captions: Output[Dataset],
    quarantine: Output[Dataset],
    ledger: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Describe every region in stages and verify it."""
    from components.kernel.kubeflow import run_component

    run_component(
        "describe",
        inputs={"regions": regions, "images": images},
        outputs={"captions": captions, "quarantine": quarantine, "ledger": ledger},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
