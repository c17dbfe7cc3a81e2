"""The Kubeflow component of `sample_grit`: a shim over step.py."""

from kfp.dsl import Dataset, Metrics, Output, component

from components.kernel.images import image


@component(base_image=image("data"), install_kfp_package=False)
def sample_grit(
    grit: Output[Dataset],
    metrics: Output[Metrics],
    settings: str = "{}",
    destinations: str = "{}",
) -> None:
    """Compose scenes of real photographs with exact masks, some broken on purpose."""
    from components.kernel.kubeflow import run_component

    run_component(
        "sample_grit",
        inputs={},
        outputs={"grit": grit},
        metrics=metrics,
        settings=settings,
        destinations=destinations,
    )
