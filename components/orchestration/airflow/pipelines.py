"""A Kubeflow pipeline in Airflow: as the tasks of its graph, or as one task that submits it.

The graph stands once, where the pipeline is defined; `Tasks` is handed to it in place of kfp.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import BaseOperator

from components.core.settings import merge
from components.orchestration.airflow.kubeflow.operator import KubeflowPipelineOperator
from components.orchestration.airflow.operators import (
    StepOperator,
    newest_publication,
    version_settings,
)


@dataclass(frozen=True)
class Place:
    """What Airflow adds to a step of a graph.

    Args:
        outputs: where its artifacts are below the run folder.
        page: path of the web page that it writes.
        settings: that its tasks decide.
        kind: the operator that runs it.
        pool: of Airflow, for a slot of which it waits; empty: the default one.
    """

    outputs: Mapping[str, str]
    page: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    kind: type[StepOperator] = StepOperator
    pool: str = ""


@dataclass(frozen=True)
class Artifact:
    """An output of a task, where it will lie."""

    path: str
    task: BaseOperator


class Task:
    """What a graph holds of one of its tasks; the same words as those of kfp's."""

    def __init__(self, operator: BaseOperator, outputs: Mapping[str, str]) -> None:
        self.operator = operator
        self.outputs = {name: Artifact(path, operator) for name, path in outputs.items()}

    def after(self, *tasks: "Task") -> "Task":
        """Begin only when these are done."""
        for task in tasks:
            task.operator >> self.operator
        return self

    def set_display_name(self, _: str) -> "Task":
        """Names are made of step and stage already."""
        return self


class Tasks:
    """Makes the Airflow task of each step of a graph, after those whose artifacts it takes.

    `places` has an entry for each step; one for `<step>_<stage>` stands for a task of its own.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self.operators: list[BaseOperator] = []

    def __call__(
        self, step: str, *, settings: str = "", stage: str = "", **inputs: Artifact
    ) -> Task:
        """The task of a step; its settings come from the params file and the run."""
        task_id = f"{step}_{stage}" if stage else step
        place = self._places[task_id]
        operator = place.kind(
            task_id=task_id,
            step=step,
            inputs={name: artifact.path for name, artifact in inputs.items()},
            outputs=place.outputs,
            settings={**place.settings, **({"stage": stage} if stage else {})},
            page=place.page,
            **({"pool": place.pool} if place.pool else {}),
        )
        for artifact in inputs.values():
            artifact.task >> operator
        self.operators.append(operator)
        return Task(operator, place.outputs)


class SubmitOperator(KubeflowPipelineOperator):
    """Submits one of the project's pipelines, whose parameters are the settings of its steps.

    The settings are those of the version that was uploaded, changed by the run's `overrides`;
    `resolve_data` takes the version of the data set that an asset's event names, if one started
    the run.
    """

    template_fields = (*KubeflowPipelineOperator.template_fields, "overrides")

    def __init__(
        self, *, overrides: str = "{{ params.overrides | tojson }}", **kwargs: Any
    ) -> None:
        super().__init__(**{"experiment": "pixclip", **kwargs})
        self.overrides = overrides
        self._event: dict[str, str] = {}

    def execute(self, context: Any) -> Any:
        """Submit the pipeline, and wait for its end."""
        self._event = newest_publication(context.get("triggering_asset_events") or {})
        return super().execute(context)

    def run_parameters(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of every step that differ from the version's own."""
        from components.orchestration.kubeflow.server import pinned_arguments

        overrides = json.loads(self.overrides)
        version = version_settings(self._event)
        if version:
            overrides["resolve_data"] = merge(overrides.get("resolve_data", {}), version)
        return pinned_arguments(spec, overrides)
