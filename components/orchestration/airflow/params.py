"""The parameters that every DAG of steps has: where its artifacts go and what sets its steps."""

from collections.abc import Sequence

from airflow.sdk import Param

from components.orchestration.local import BACKENDS


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
