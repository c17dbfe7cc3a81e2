"""What every DAG of steps has: parameters for artifacts and settings, and how tasks are retried."""

from collections.abc import Sequence
from datetime import timedelta

from airflow.sdk import Param

from components.orchestration.local import BACKENDS

TASK_DEFAULTS = {
    "owner": "pixclip",
    "retries": 2,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def run_params(run_folder: str, params_file: str, steps: Sequence[str]) -> dict[str, Param]:
    """Run folder, params file (with their defaults), overrides of these steps, and backend."""
    return {
        "run_folder": Param(
            run_folder,
            type="string",
            minLength=1,
            title="Run folder",
            description="Where all artifacts go; relative to the project",
            section="Run",
        ),
        "params_file": Param(
            params_file,
            type="string",
            minLength=1,
            title="Params file",
            description="YAML with a section of settings for each step; relative to the project",
            section="Settings",
        ),
        "overrides": Param(
            {},
            type="object",
            propertyNames={"enum": list(steps)},
            additionalProperties={"type": "object"},
            title="Overrides",
            description="Step name → settings that win over the params file, for this run",
            section="Settings",
        ),
        "backend": Param(
            BACKENDS[0],
            enum=list(BACKENDS),
            title="Backend",
            description="Where the components run: processes of this machine, or their images",
            section="Run",
        ),
    }
