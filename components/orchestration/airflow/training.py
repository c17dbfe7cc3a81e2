"""The graph of a DAG that trains: a pipeline's own, or a task that submits it to Kubeflow."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow.sdk import Asset, Param, task

from components.orchestration.airflow.operators import ResolveOperator
from components.orchestration.airflow.params import run_params
from components.orchestration.airflow.pipelines import Place, SubmitOperator, Tasks
from components.orchestration.airflow_home import GPU_POOL
from components.orchestration.kubeflow.pipeline import Pipeline

EVALUATION = Place({"evaluation": "evaluation"}, page="evaluation/evaluation.html", pool=GPU_POOL)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a DAG trains, on which data, by which recipe.

    Args:
        pipeline: whose graph it runs.
        dataset: the data set that it is trained on: asset, and folder below `dataset/`.
        model: the asset that has a new event in the end.
        variable: of the environment, that names the recipe.
        recipe: without that variable.
        run_folder: unless the run names another.
        places: of the steps that only this pipeline has.
    """

    pipeline: Pipeline
    dataset: str
    model: Asset
    variable: str
    recipe: str
    run_folder: str
    places: Mapping[str, Place]

    @property
    def data(self) -> Asset:
        """What starts a run."""
        return Asset(name=self.dataset, uri=f"pixclip://{self.dataset}/", group="pixclip")

    @property
    def is_submitted(self) -> bool:
        """Whether Kubeflow runs the pipeline."""
        return os.environ.get("PIXCLIP_BACKEND") == "kubeflow"

    @cached_property
    def params(self) -> dict[str, Param]:
        """The parameters of the DAG."""
        steps, file = self.pipeline.steps, str(self.pipeline.params_file)
        params = run_params(self.run_folder, file, steps)
        return {"overrides": params["overrides"]} if self.is_submitted else params

    def graph(self) -> None:
        """The pipeline's tasks after a check of all settings."""
        (self._submit if self.is_submitted else self._run_here)(self._check_settings())

    def _run_here(self, checked: Any) -> None:
        """A task for each step, on workers of Airflow."""
        recipe = os.environ.get(self.variable, self.recipe)
        stages = self.pipeline.stages(recipe)
        tasks = Tasks(self._all_places(recipe, stages))
        self.pipeline.graph(tasks, stages, **dict.fromkeys(self.pipeline.steps, ""))
        first, *_, last = tasks.operators
        checked >> first
        last.add_outlets([self.model])

    def _submit(self, checked: Any) -> None:
        """One task for the whole pipeline, on Kubeflow."""
        name = self.pipeline.name
        checked >> SubmitOperator(
            task_id="train", pipeline=name, deferrable=True, outlets=[self.model]
        )

    def _check_settings(self) -> Any:
        pipeline, known, variable = self.pipeline, self.params, self.variable

        @task
        def check_settings(params: Any = None, dag_run: Any = None) -> None:
            """Refuse wrong settings now, not hours later."""
            from components.orchestration.airflow.conf import refuse_fixed, refuse_wrong_conf

            fixed = {pipeline.trains: {"recipe", "stage"}, "init_model": {"recipe"}}
            refuse_fixed(params["overrides"], fixed, variable)
            params = {"params_file": str(pipeline.params_file), **params}
            refuse_wrong_conf(pipeline.steps, known, params, dag_run.conf or {})

        return check_settings()

    def _all_places(self, recipe: str, stages: tuple[str, ...]) -> dict[str, Place]:
        trains = self.pipeline.trains
        return {
            "resolve_data": Place({"dataset": f"dataset/{self.dataset}"}, kind=ResolveOperator),
            "check": Place(
                {"data_docs": "dataset/data_docs"},
                page="dataset/data_docs/index.html",
                settings={"artifact": "longgrit"},
            ),
            "init_model": Place({"parent": "parent"}, settings={"recipe": recipe}),
            **{f"{trains}_{stage}": _trained(stage, recipe, stages) for stage in stages},
            "register": Place({"registration": "registration"}),
            "promote": Place({"promotion": "promotion"}, page="promotion/report.html"),
            **self.places,
        }


def _trained(stage: str, recipe: str, stages: tuple[str, ...]) -> Place:
    """Where a stage's checkpoint lies; the last one's is the result."""
    checkpoint = "checkpoint" if stage == stages[-1] else f"stages/{stage}/checkpoint"
    outputs = {"checkpoint": checkpoint, "curves": f"stages/{stage}/curves.csv"}
    return Place(outputs, settings={"recipe": recipe}, pool=GPU_POOL)
