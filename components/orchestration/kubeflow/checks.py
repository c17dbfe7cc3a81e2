"""What must hold of the settings of a pipeline before any of its tasks does something.

Checked when a pipeline is compiled, and again by the first task of a run, since whoever starts a
run may change settings. Nothing heavy is imported: the task runs in the image `data`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.settings import parse_settings
from components.core.step import Step, StepSettings, is_marked, load_step
from components.orchestration.kubeflow.cluster import STATE_PATH
from components.orchestration.kubeflow.pipeline import Settings
from components.orchestration.kubeflow.pipelines import TRAINING

ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:|[\w-]+(\.[\w-]+)+:"
)  # also git@host:path
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def check_step(name: str, settings: Mapping[str, Any]) -> None:
    """Check a step's settings, those of one that trains for every stage of its recipe.

    Raises:
        SettingsError: names what is wrong.
    """
    for _ in parsed(name, settings):
        pass


def parsed(name: str, settings: Mapping[str, Any]) -> Iterator[StepSettings]:
    """A step's settings; those of one that trains once for every stage of its recipe.

    Raises:
        SettingsError: names what is wrong.
    """
    pipeline = TRAINING.get(name)
    stages = pipeline.stages(pipeline.recipe({name: settings})) if pipeline else ()
    for own in [{"stage": stage} for stage in stages] or [{}]:
        yield parse_settings(load_step(name), {**settings, **own})


def check_run(arguments: Mapping[str, str], *, pinned_data: bool) -> None:
    """Check the arguments of a run on a cluster: each step's settings as JSON.

    Raises:
        SettingsError: lists what is wrong at every step.
    """
    settings = {name: json.loads(text) for name, text in arguments.items()}
    failures = []
    for name, section in settings.items():
        try:
            check_step(name, section)
        except SettingsError as error:
            failures.append(str(error))
    if not failures:
        failures += foreign_places(settings)
        failures += moving_data(settings) if pinned_data else []
    if failures:
        raise SettingsError("; ".join(failures))


def foreign_places(settings: Settings) -> list[str]:
    """What settings name that no pod of a cluster sees: files and folders of somebody's machine."""
    return [
        f"{name}.{key}: {text} is a path of this machine, which no pod sees; name an address, or a "
        f"path below {STATE_PATH} of the state claim (`settings` of the cluster file, or --set)"
        for name, section in settings.items()
        for key, text in load_step(name).locations(next(parsed(name, section))).items()
        if not _is_seen_by_pods(load_step(name), key, text)
    ]


def _is_seen_by_pods(step: Step, key: str, text: str) -> bool:
    if ADDRESS.match(text):
        return not text.startswith("file://")
    if Path(text).is_absolute():
        return Path(text).is_relative_to(STATE_PATH)
    # A model of the Hugging Face Hub, unless there is a folder of that name.
    is_hub_name = HUB_NAME.fullmatch(text) is not None and not Path(text).exists()
    return is_hub_name and is_marked(step.settings_type.model_fields[key], "on_hub")


def moving_data(settings: Settings) -> list[str]:
    """What is wrong with the version of the data if tasks that depend on it are cached."""
    step, section = load_step("resolve_data"), settings["resolve_data"]
    known = parse_settings(step, section)
    if step.is_pure(known) and not step.sources(known):
        return []
    what = section.get("uri") or f"revision {section.get('revision', 'HEAD')}"
    return [
        f"resolve_data: {what} may be another data set tomorrow, and Kubeflow's cache would bring "
        "the one of before; give revision the commit with all its 40 digits, or compile the "
        "pipeline with `pinned_data: false` in the cluster file"
    ]
