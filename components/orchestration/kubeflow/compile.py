"""Compile a pipeline or a component to Kubeflow's YAML: the same settings, the same bytes."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.kubeflow import component_of
from components.core.settings import merge, parse_settings
from components.core.step import Step, load_step
from components.orchestration.kubeflow.cluster import ClusterSettings
from components.orchestration.kubeflow.pixclip_train import STEPS, build_pipeline
from components.orchestration.plan import Overrides, check_settings, step_settings

PIPELINES = {"pixclip-train": Path("params/pixclip.yaml")}  # with the settings of its steps
NO_STAGE = (
    "train.stage cannot be set here: a pipeline trains all stages of train.recipe, one task each; "
    "`pixclip train` trains a single one"
)


def pipeline_settings(params_file: Path, overrides: Overrides) -> dict[str, dict[str, object]]:
    """The checked settings of every step of the pipeline; those of `train` fit every stage.

    Raises:
        SettingsError: lists what is wrong at every step.
    """
    if "stage" in overrides.get("train", {}):
        raise SettingsError(NO_STAGE)
    settings = {name: step_settings(name, params_file, overrides) for name in STEPS}
    recipe = recipe_of(settings)
    for stage in recipe_stages(recipe):
        train = merge(overrides.get("train", {}), {"stage": stage})
        check_settings(STEPS, params_file, {**overrides, "train": train})
    begun = recipe_of(settings, "init_model")
    if begun != recipe:
        raise SettingsError(
            f"init_model.recipe is '{begun}', train.recipe is '{recipe}'; set both to one recipe"
        )
    return settings


def check_step(name: str, settings: Mapping[str, Any]) -> None:
    """Check a step's settings, those of `train` for every stage of its recipe.

    Raises:
        SettingsError: names what is wrong.
    """
    stages = recipe_stages(recipe_of({name: settings})) if name == "train" else ()
    for own in [{"stage": stage} for stage in stages] or [{}]:
        parse_settings(load_step(name), {**settings, **own})


def compile_pipeline(
    settings: Mapping[str, Mapping[str, Any]], cluster: ClusterSettings | None
) -> str:
    """The pipeline as YAML text; the settings become the defaults of its parameters.

    Args:
        settings: step -> its settings.
        cluster: None for this machine, where ranks need no accelerators.

    Raises:
        SettingsError: the recipe of `train` is unknown, or a step of `cluster.gpus`, or a step
            would leave accelerators idle or lack some.
    """
    if cluster:
        _require_a_rank_an_accelerator(settings, cluster)
    pipeline = build_pipeline(recipe_stages(recipe_of(settings)), cluster or ClusterSettings())
    return _compiled(pipeline, pipeline_arguments(settings))


def compile_component(step: Step) -> str:
    """A step as YAML text, which kfp loads as a component."""
    return _compiled(component_of(step))


def _compiled(definition: Any, parameters: Mapping[str, str] | None = None) -> str:
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "definition.yaml"
        compiler.Compiler().compile(definition, str(path), pipeline_parameters=parameters)
        return path.read_text(encoding="utf-8")


def _require_a_rank_an_accelerator(
    settings: Mapping[str, Mapping[str, Any]], cluster: ClusterSettings
) -> None:
    strange = sorted(set(cluster.gpus) - set(STEPS))
    if strange:
        raise SettingsError(f"gpus: no such step in this pipeline: {', '.join(strange)}")
    for step in map(load_step, STEPS):
        num_gpus = cluster.gpus.get(step.name, step.gpus)
        field = step.settings_type.model_fields.get("num_ranks")
        num_ranks = settings[step.name].get("num_ranks", field.default) if field else num_gpus
        if num_gpus and num_ranks != num_gpus:
            raise SettingsError(
                f"{step.name} gets {num_gpus} accelerator(s), but {step.name}.num_ranks is "
                f"{num_ranks}, and a rank uses one; set both alike (gpus.{step.name} of the "
                "cluster file; 0: no accelerators)"
            )


def pipeline_arguments(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The pipeline's parameters: each step's settings as JSON text."""
    return {name: json.dumps(dict(section)) for name, section in settings.items()}


def recipe_of(settings: Mapping[str, Mapping[str, Any]], step: str = "train") -> str:
    """The recipe that a step follows."""
    default = load_step(step).settings_type.model_fields["recipe"].default
    return str(settings[step].get("recipe", default))


def recipe_stages(recipe: str) -> tuple[str, ...]:
    """The names of a recipe's stages, in order.

    Raises:
        SettingsError: there is no such recipe.
    """
    from pixclip.training.recipes import RECIPES

    if recipe not in RECIPES:
        raise SettingsError(f"train.recipe: no recipe '{recipe}'; known are {', '.join(RECIPES)}")
    return tuple(stage.name for stage in RECIPES[recipe].stages)
