"""The exit handler of a pipeline: says how it ended, and forgets old work on the state volume."""

from kfp.dsl import Metrics, Output, PipelineTaskFinalStatus, component

from components.core.kubeflow import image


@component(base_image=image("train"), install_kfp_package=False)
def record_outcome(
    status: PipelineTaskFinalStatus, outcome: Output[Metrics], keep_days: int = 14
) -> None:
    """Say how the pipeline ended, and forget work that no run has used for some days."""
    from components.core.run import forget_old, state_folder

    told = f" at task {status.pipeline_task_name}: {status.error_message}"
    print(f"pipeline {status.state}{told if status.error_message else ''}")  # noqa: T201  # kfp shows what a component prints
    state = state_folder()
    removed = forget_old(state, keep_days) if state else []
    outcome.log_metric("succeeded", float(status.state == "SUCCEEDED"))
    outcome.log_metric("num_forgotten", float(len(removed)))
