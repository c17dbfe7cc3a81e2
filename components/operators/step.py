"""Run a step as an Airflow task: `StepOperator(step="select", inputs={…}, outputs={…})`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from components.kernel.errors import ContractViolation, GateError, InputError, SettingsError
from components.operators.links import PageLink
from components.runners.backends import StepRun, open_backend
from components.runners.home import at_home

log = logging.getLogger(__name__)

# The same input and settings fail the same way again: a retry would only cost time.
FINAL_ERRORS = (ContractViolation, GateError, InputError, SettingsError)


class StepOperator(BaseOperator):
    """Runs the Kubeflow component of a step on artifacts below a run folder.

    Paths are relative to the run folder; `{group}` in them is the group over which the task is
    mapped. Settings come from the step's section of the params file, from `settings` (empty texts
    count as not given), and from the run's `overrides`, the later winning. The metrics are the
    task's XCom.

    Contract violations, gates, bad settings and missing inputs fail at once; anything else is
    retried, and a retry goes on where the killed attempt stopped.

    Args:
        page: path of a web page that the step writes; it becomes a link at the task.
    """

    template_fields: Sequence[str] = (
        "step", "inputs", "outputs", "settings", "group", "page",
        "run_folder", "params_file", "overrides", "backend",
    )  # fmt: skip
    template_fields_renderers = {"inputs": "json", "outputs": "json", "settings": "json"}  # noqa: RUF012
    ui_color = "#dceefb"

    def __init__(
        self,
        *,
        step: str,
        outputs: Mapping[str, str],
        inputs: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        group: str = "",
        page: str = "",
        run_folder: str = "{{ params.run_folder }}",
        params_file: str = "{{ params.params_file }}",
        overrides: str = "{{ params.overrides | tojson }}",
        backend: str = "{{ params.backend }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step, self.group, self.page = step, group, page
        self.inputs, self.outputs = dict(inputs or {}), dict(outputs)
        self.settings = dict(settings or {})
        self.run_folder, self.params_file = run_folder, params_file
        self.overrides, self.backend = overrides, backend
        if page:
            self.operator_extra_links = (PageLink(),)

    def execute(self, context: Any) -> dict[str, int | float]:
        """Run the step; the result is the task's XCom."""
        try:
            metrics = open_backend(self.backend).run(self.step_run())
        except FINAL_ERRORS as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        log.info("%s: %s", self.step, json.dumps(metrics, sort_keys=True))
        if self.page:
            log.info("open %s", self.path(self.page))
        return metrics

    def step_run(self) -> StepRun:
        """What the backend is asked to run."""
        # Airflow has put the templates' values into the fields by now.
        from components.runners.plan import step_settings

        overrides = json.loads(self.overrides)
        own = {name: value for name, value in self.settings.items() if value != ""}
        return StepRun(
            step=self.step,
            inputs={name: self.path(path) for name, path in self.inputs.items()},
            outputs={name: self.path(path) for name, path in self.outputs.items()},
            settings=step_settings(self.step, at_home(self.params_file), overrides, own),
        )

    def path(self, path: str) -> Path:
        """A path of this task's run folder and group."""
        return at_home(self.run_folder) / path.format(group=self.group)
