"""Run the source that was chosen for this run."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.operators.step import StepOperator
from components.runners.backends import StepRun


class SourceOperator(StepOperator):
    """Runs one of several source steps; `addresses` holds the settings of each."""

    template_fields: Sequence[str] = (*StepOperator.template_fields, "addresses")
    template_fields_renderers = {  # noqa: RUF012
        **StepOperator.template_fields_renderers,
        "addresses": "json",
    }

    def __init__(self, *, addresses: Mapping[str, Mapping[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.addresses = {step: dict(settings) for step, settings in addresses.items()}

    def step_run(self) -> StepRun:
        """What the backend is asked to run: the chosen source with its own addresses."""
        self.settings = {**self.addresses.get(self.step, {})}
        return super().step_run()
