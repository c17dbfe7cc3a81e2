"""Compile a pipeline or a component to Kubeflow's YAML: the same settings, the same bytes."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.kubeflow import component_of
from components.core.settings import merge
from components.core.step import Step, load_step
from components.orchestration.kubeflow.checks import check_step as check_step
from components.orchestration.kubeflow.checks import foreign_places, moving_data
from components.orchestration.kubeflow.cluster import ClusterSettings
from components.orchestration.kubeflow.pipeline import Pipeline, Settings, build_pipeline, recipe_of
from components.orchestration.kubeflow.pipelines import PIPELINES
from components.orchestration.plan import Overrides, check_settings, step_settings

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


def pipeline_settings(
    pipeline: Pipeline,
    overrides: Overrides,
    cluster: ClusterSettings | None = None,
    params_file: Path | None = None,
) -> dict[str, dict[str, object]]:
    """The checked settings of every step of the pipeline; those of training fit every stage.

    The cluster's win over the params file, `overrides` over both.

    Args:
        params_file: None: the pipeline's own.

    Raises:
        SettingsError: lists what is wrong at every step.
    """
    file, trains = params_file or pipeline.params_file, pipeline.trains
    if cluster:
        own = {name: cluster.settings.get(name, {}) for name in pipeline.steps}
        overrides = {
            name: merge(own.get(name, {}), overrides.get(name, {})) for name in {**own, **overrides}
        }
    if "stage" in overrides.get(trains, {}):
        raise stage_refused(trains)
    settings = {name: step_settings(name, file, overrides) for name in pipeline.steps}
    recipe, begun = pipeline.recipe(settings), recipe_of(settings, "init_model")
    for stage in pipeline.stages(recipe):
        trained = merge(overrides.get(trains, {}), {"stage": stage})
        check_settings(pipeline.steps, file, {**overrides, trains: trained})
    if begun != recipe:
        raise SettingsError(
            f"init_model.recipe is '{begun}', {trains}.recipe is '{recipe}'; set both to one recipe"
        )
    return settings


def stage_refused(step: str) -> SettingsError:
    """What is wrong with a single stage where a pipeline trains all."""
    return SettingsError(
        f"{step}.stage cannot be set here: a pipeline trains all stages of {step}.recipe, one task "
        f"each; `pixclip {step.replace('_', '-')}` trains a single one"
    )


def compile_pipeline(
    pipeline: Pipeline, settings: Settings, cluster: ClusterSettings | None
) -> str:
    """The pipeline as YAML text; the settings become the defaults of its parameters.

    Args:
        pipeline: one of this project's.
        settings: step -> its settings.
        cluster: None for this machine, where ranks need no accelerators.

    Raises:
        SettingsError: the recipe is unknown, or a step that the cluster names; a step would leave
            accelerators idle or lack some; settings name paths of this machine, or nothing says
            where MLflow is, although a cluster is named.
    """
    if cluster:
        _require_known_steps(cluster)
        _require_a_rank_an_accelerator(settings, cluster)
        _require_places_of_the_cluster(settings, cluster)
    stages = pipeline.stages(pipeline.recipe(settings))
    built = build_pipeline(pipeline, stages, cluster, cached_steps(settings, cluster))
    return _compiled(built, pipeline_arguments(settings))


def cached_steps(settings: Settings, cluster: ClusterSettings | None) -> frozenset[str]:
    """The steps whose tasks Kubeflow may take from its cache.

    Their outputs depend on inputs and settings alone, and their images are named by digest: what
    the cache counts of an image is its name.
    """
    steps = [load_step(name) for name in settings]
    pure = {step.name for step in steps if step.purity is True}
    if (cluster and cluster.pinned_data) or not moving_data(settings):
        pure.add("resolve_data")
    is_named = {step.name: not cluster or bool(cluster.image_digest(step.image)) for step in steps}
    return frozenset(name for name in pure if is_named[name])


def compile_component(step: Step) -> str:
    """A step as YAML text, which kfp loads as a component."""
    return _compiled(component_of(step))


def _compiled(definition: Any, parameters: Mapping[str, str] | None = None) -> str:
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "definition.yaml"
        compiler.Compiler().compile(definition, str(path), pipeline_parameters=parameters)
        return path.read_text(encoding="utf-8")


def _require_known_steps(cluster: ClusterSettings) -> None:
    """A cluster's file is that of all pipelines."""
    known = {step for pipeline in PIPELINES.values() for step in pipeline.steps}
    for setting, names in cluster.named_steps().items():
        strange = sorted(set(names) - known)
        if strange:
            raise SettingsError(f"{setting}: no such step in any pipeline: {', '.join(strange)}")


def _require_places_of_the_cluster(settings: Settings, cluster: ClusterSettings) -> None:
    failures = foreign_places(settings)
    told = {*cluster.environment, *(name for s in cluster.secrets for name in s.keys.values())}
    if TRACKING_VARIABLE not in told:
        failures += [
            f"{name}.tracking_uri is empty, which means a file of the pod; set {TRACKING_VARIABLE} "
            "in `environment` of the cluster file"
            for name in settings
            if "tracking_uri" in load_step(name).settings_type.model_fields
            and not settings[name].get("tracking_uri")
        ]
    if failures:
        raise SettingsError("; ".join(failures))


def _require_a_rank_an_accelerator(settings: Settings, cluster: ClusterSettings) -> None:
    for step in map(load_step, settings):
        num_gpus = cluster.gpus.get(step.name, step.gpus)
        field = step.settings_type.model_fields.get("num_ranks")
        num_ranks = settings[step.name].get("num_ranks", field.default) if field else num_gpus
        num_nodes = cluster.nodes.get(step.name, 1)
        if step.name in cluster.nodes and not field:
            raise SettingsError(f"nodes: {step.name} has no ranks that could run on nodes")
        if num_ranks % num_nodes:
            raise SettingsError(
                f"{step.name}.num_ranks is {num_ranks}, which {num_nodes} nodes cannot share "
                f"evenly (nodes.{step.name} of the cluster file)"
            )
        if num_gpus and num_ranks != num_gpus * num_nodes:
            raise SettingsError(
                f"{step.name} gets {num_gpus * num_nodes} accelerator(s), but "
                f"{step.name}.num_ranks is {num_ranks}, and a rank uses one; set both alike "
                f"(gpus.{step.name} of the cluster file; 0: no accelerators)"
            )


def pipeline_arguments(settings: Settings) -> dict[str, str]:
    """The pipeline's parameters: each step's settings as JSON text."""
    return {name: json.dumps(dict(section)) for name, section in settings.items()}
