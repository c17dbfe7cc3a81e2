"""How a pipeline ended, as its exit task is told.

Kubeflow Pipelines gives it the last state of the task in ML Metadata (COMPLETE, FAILED, or RUNNING,
which also stands for an end after a cached task or a pod that vanished) and never a message;
`kfp.local` gives SUCCEEDED or FAILED.
"""

SUCCEEDED = {"COMPLETE": True, "CACHED": True, "SUCCEEDED": True, "FAILED": False}


def succeeded(state: str) -> bool | None:
    """Whether a pipeline succeeded; None if Kubeflow does not know."""
    return SUCCEEDED.get(state)


def told(state: str, task: str, message: str) -> str:
    """The end of a pipeline in a line."""
    if succeeded(state) is None:
        return f"pipeline ended; Kubeflow says {state}, which tells nothing: look at the run's page"
    return f"pipeline {state}" + (f" at task {task}: {message}" if message else "")
