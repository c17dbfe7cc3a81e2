"""The settings of every step of a pipeline run: a params file, with a run's own changes over it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.settings import merge, parse_settings, read_params
from components.core.step import load_step

Overrides = Mapping[str, Mapping[str, Any]]


def step_settings(
    step: str, params_file: Path, overrides: Overrides, own: Mapping[str, object] | None = None
) -> dict[str, object]:
    """A step's settings; the run's overrides win over `own`, those over the params file."""
    return merge(merge(read_params(params_file, step), own or {}), overrides.get(step, {}))


def check_settings(steps: Iterable[str], params_file: Path, overrides: Overrides) -> None:
    """Check the settings of all steps before the first one starts.

    Raises:
        SettingsError: lists what is wrong at every step.
    """
    steps = list(steps)
    failures = [
        f"{name}: no such step in this pipeline; its steps are {', '.join(steps)}"
        for name in overrides
        if name not in steps
    ]
    for name in steps:
        try:
            parse_settings(load_step(name), step_settings(name, params_file, overrides))
        except SettingsError as error:
            failures.append(str(error))
    if failures:
        raise SettingsError("; ".join(failures))
