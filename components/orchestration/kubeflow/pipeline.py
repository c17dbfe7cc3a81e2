"""What a training pipeline of Kubeflow is, and how kfp gets it.

Every parameter is the settings of a step as JSON, and its default the step's section of the params
file with which the pipeline was compiled (`compile.py`). On a cluster a task before all others
checks all settings. The exit handler says how the run ended.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.kubeflow import component_of
from components.core.step import load_step
from components.orchestration.kubeflow.cluster import DAY_S, ClusterSettings, place, use_state
from pixclip.training.config import AnyRecipe

# Makes the task of a step: its name, and its component's arguments.
Run = Callable[..., Any]
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """From a version of a data set to a promoted model.

    Args:
        name: on a server.
        text: what it does, for Kubeflow's pages.
        graph: `graph(run, stages, *, <step>=…)` makes its tasks by `run`, of each step's settings.
        params_file: with a section for each of its steps.
        trains: its step that trains; each stage of the recipe becomes a task of it.
        recipes: that this step knows.
    """

    name: str
    text: str
    graph: Callable[..., None]
    params_file: Path
    trains: str
    recipes: Mapping[str, AnyRecipe[Any]]

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """Its steps: the parameters of the graph that have names only."""
        parameters = inspect.signature(self.graph).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)

    def stages(self, recipe: str) -> tuple[str, ...]:
        """The names of a recipe's stages, in order.

        Raises:
            SettingsError: there is no such recipe.
        """
        if recipe not in self.recipes:
            raise SettingsError(
                f"{self.trains}.recipe: no recipe '{recipe}'; known are {', '.join(self.recipes)}"
            )
        return tuple(stage.name for stage in self.recipes[recipe].stages)

    def recipe(self, settings: Settings) -> str:
        """The recipe by which it trains."""
        return recipe_of(settings, self.trains)


def register_and_promote(
    run: Run, checkpoint: Any, evaluation: Any, *, register: str, promote: str
) -> None:
    """The last tasks of every graph: the model becomes candidate, and champion if better."""
    registration = run(
        "register", checkpoint=checkpoint, evaluation=evaluation, settings=register
    ).outputs["registration"]
    run("promote", registration=registration, settings=promote)


def recipe_of(settings: Settings, step: str) -> str:
    """The recipe that a step follows."""
    default = load_step(step).settings_type.model_fields["recipe"].default
    return str(settings[step].get("recipe", default))


def build_pipeline(
    pipeline: Pipeline,
    stages: Sequence[str],
    cluster: ClusterSettings | None,
    cached: Collection[str],
) -> Any:
    """kfp's pipeline for a recipe with these stages, placed on a cluster.

    Args:
        pipeline: one of this project's.
        stages: of the recipe; each becomes a task.
        cluster: None for this machine, whose runs take the settings that were checked here.
        cached: steps whose tasks Kubeflow may take from its cache.
    """
    from kfp import dsl

    own = cluster or ClusterSettings()

    def run(name: str, **arguments: Any) -> Any:
        step = load_step(name)
        task = place(component_of(step)(**arguments), step, own)
        return task.set_caching_options(enable_caching=name in cached)

    def tasks(*settings: str) -> None:
        arguments = dict(zip(pipeline.steps, settings, strict=True))
        with dsl.ExitHandler(exit_task=_exit_task(own)):
            checked = _first_task(own, arguments) if cluster else None

            def run_after(name: str, **inputs: Any) -> Any:
                task = run(name, **inputs)
                is_first = checked is not None and not load_step(name).inputs
                return task.after(checked) if is_first else task

            pipeline.graph(run_after, stages, **arguments)

    # kfp reads the names of a pipeline's parameters here.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=str) for name in pipeline.steps]
    vars(tasks)["__signature__"] = inspect.Signature(parameters)
    config = dsl.PipelineConfig(
        active_deadline_seconds=round(own.run_days * DAY_S),
        ttl_seconds_after_finished=round(own.ttl_days * DAY_S),
    )
    return dsl.pipeline(
        name=pipeline.name,
        description=pipeline.text,
        pipeline_config=config if cluster else None,
    )(tasks)


def _first_task(cluster: ClusterSettings, settings: Mapping[str, Any]) -> Any:
    from components.orchestration.kubeflow.own_tasks import check_settings_of

    check_settings = check_settings_of(settings)
    task = place(check_settings(**settings, pinned_data=cluster.pinned_data), None, cluster)
    task.set_retry(0)  # the same settings are wrong again
    return task.set_caching_options(enable_caching=False).set_display_name("check settings")


def _exit_task(cluster: ClusterSettings) -> Any:
    from components.orchestration.kubeflow.own_tasks import record_outcome

    days = {"keep_days": cluster.keep_days, "keep_pointed_days": cluster.keep_pointed_days}
    task = place(record_outcome(**days), None, cluster)
    if cluster.state_claim:
        use_state(task, cluster)
    return task.set_caching_options(enable_caching=False).set_display_name("record outcome")
