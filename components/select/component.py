"""The Kubeflow component of `select`: a shim over step.py."""

from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def select(
    grit: Input[Dataset],
    records: Output[Dataset],
    quarantine: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Keep the regions that are worth downloading, in groups; say why the others are not."""
    from components.kernel.kubeflow import run_component

    run_component(
        "select",
        inputs={"grit": grit},
        outputs={"records": records, "quarantine": quarantine},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
