"""A pipeline's own small tasks: the first checks all settings, the last says how it ended.

They run in the image `data`, the small one; what they call is imported there.
"""

from collections.abc import Iterable
from typing import Any

from kfp.dsl import Metrics, Output, PipelineTaskFinalStatus, component

from components.core.kubeflow import function_of, image

CHECK_SETTINGS = '''\
def check_settings(
    {parameters},
    pinned_data: bool = False,
) -> None:
    """Check the settings of all steps, before anything is downloaded."""
    arguments = {{name: text for name, text in locals().items() if name != "pinned_data"}}
    from components.orchestration.kubeflow.checks import check_run

    check_run(arguments, pinned_data=pinned_data)
'''


def check_settings_of(steps: Iterable[str]) -> Any:
    """The component that checks the settings of these steps, each a parameter with JSON."""
    source = CHECK_SETTINGS.format(parameters=",\n    ".join(f"{name}: str" for name in steps))
    check_settings = function_of("check_settings", source, {})
    return component(base_image=image("data"), install_kfp_package=False)(check_settings)


@component(base_image=image("data"), install_kfp_package=False)
def record_outcome(
    status: PipelineTaskFinalStatus,
    outcome: Output[Metrics],
    keep_days: int = 14,
    keep_pointed_days: int = 0,
) -> None:
    """Say how the pipeline ended, and forget work that no run has used for some days."""
    from components.core.state import forget_old, state_folder
    from components.orchestration.kubeflow.outcome import succeeded, told

    print(told(status.state, status.pipeline_task_name, status.error_message))  # noqa: T201  # kfp shows what a component prints
    state = state_folder()
    removed = forget_old(state, keep_days, keep_pointed_days or None) if state else []
    is_good = succeeded(status.state)
    if is_good is not None:
        outcome.log_metric("succeeded", float(is_good))
    outcome.log_metric("num_forgotten", float(len(removed)))
