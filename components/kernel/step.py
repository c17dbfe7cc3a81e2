"""A step: a typed function from files to files whose signature is its contract.

    @step(image="data")
    def ingest(records: In, images: Out, quarantine: Out, settings: IngestSettings) -> Metrics:
        \"\"\"Download every image once.\"\"\"

A parameter's name is the name of its artifact (`components/kernel/artifacts.py`); the contract
of that name in `data_contracts/` is checked around the step.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from components.kernel.artifacts import ARTIFACTS

IN, OUT = "input", "output"
In = Annotated[Path, IN]
Out = Annotated[Path, OUT]
Metrics = dict[str, int | float]

# In the order in which `longgrit_build` and then `pixclip_train` run them.
STEP_NAMES = (
    "sample_grit",
    "import_grit",
    "import_coco",
    "select",
    "ingest",
    "deduplicate",
    "segment",
    "describe",
    "pack",
    "export",
    "check",
    "publish",
    "resolve_data",
    "adapt_text",
    "embed_text",
    "init_model",
    "train",
    "evaluate",
    "register",
    "promote",
    "rollback",
)


class StepSettings(BaseModel):
    """Base of a step's settings: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def runtime(default: Any, description: str, **rules: Any) -> Any:
    """A setting that changes how a step runs but not what it makes (endpoints, concurrency).

    Such settings do not count when a rerun decides whether an output is up to date.
    """
    return Field(default, description=description, json_schema_extra={"runtime": True}, **rules)


def place(default: Any, description: str, **rules: Any) -> Any:
    """A setting that may name a file or folder here, whose content decides the outputs too."""
    return Field(default, description=description, json_schema_extra={"place": True}, **rules)


def _runtime_fields(model: type[BaseModel]) -> dict[str, Any]:
    """The runtime settings, also those of nested sections, in the form that `exclude` takes."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("runtime"):
            found[name] = True
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = _runtime_fields(kind)
    return {name: inner for name, inner in found.items() if inner}


@dataclass(frozen=True)
class Step:
    """A step as every runner sees it.

    `is_pure`: outputs depend on inputs and settings alone. A step that also looks at the world (the
    model registry, a branch that moves) is run every time, and no runner may cache it.
    """

    name: str
    image: str
    gpus: int
    is_pure: bool
    function: Callable[..., Metrics]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings_type: type[StepSettings]

    @property
    def summary(self) -> str:
        """The first line of the step's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def fingerprinted_settings(self, settings: StepSettings) -> Mapping[str, object]:
        """The settings that decide the content of the outputs."""
        return settings.model_dump(mode="json", exclude=_runtime_fields(self.settings_type))

    def places(self, settings: StepSettings) -> dict[str, Path]:
        """The files and folders that are named by settings, as far as they are here."""
        named = {
            name: Path(getattr(settings, name))
            for name, field in self.settings_type.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("place")
        }
        return {name: path for name, path in named.items() if path.name and path.exists()}


def step(
    *, image: str, gpus: int = 0, is_pure: bool = True
) -> Callable[[Callable[..., Metrics]], Step]:
    """Make a function a step that runs in the container image `image` (a folder of `images/`)."""

    def wrap(function: Callable[..., Metrics]) -> Step:
        hints = typing.get_type_hints(function, include_extras=True)
        roles = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in hints.items()}
        parameters = list(inspect.signature(function).parameters)
        inputs = tuple(name for name in parameters if roles[name] == IN)
        outputs = tuple(name for name in parameters if roles[name] == OUT)
        unknown = [name for name in (*inputs, *outputs) if name not in ARTIFACTS]
        assert not unknown, f"step {function.__name__}: unknown artifacts {unknown}"
        assert outputs, f"step {function.__name__} has no output"
        assert ARTIFACTS[outputs[0]].is_folder, "the first output holds the receipt: a folder"
        settings_type = hints["settings"]
        assert issubclass(settings_type, StepSettings), settings_type
        name = function.__name__
        return Step(name, image, gpus, is_pure, function, inputs, outputs, settings_type)

    return wrap


def load_step(name: str) -> Step:
    """The step of that name, from `components/<name>/step.py`.

    Raises:
        ValueError: no such step.
    """
    if name not in STEP_NAMES:
        raise ValueError(f"no step '{name}'; the steps are {', '.join(STEP_NAMES)}")
    found = getattr(importlib.import_module(f"components.{name}.step"), name)
    assert isinstance(found, Step), f"components/{name}/step.py: `{name}` lacks the @step decorator"
    return found
