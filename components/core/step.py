"""A step: a typed function from files to files whose signature is its contract.

    @step(image="data")
    def ingest(records: In, images: Out, quarantine: Out, settings: IngestSettings) -> Metrics:
        \"\"\"Download every image once.\"\"\"

A parameter's name is the name of its artifact (`ARTIFACTS`); its contract in `data_contracts/` is
checked around the step.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from components.steps import STEPS

IN, OUT = "input", "output"
In = Annotated[Path, IN]
Out = Annotated[Path, OUT]
Metrics = dict[str, int | float]


class StepSettings(BaseModel):
    """Base of a step's settings: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Work(StrEnum):
    """What becomes of a step's unfinished work when settings or inputs change before it is done.

    The work is what lies in `_work/` of the first output's draft.
    """

    CHEAP = "cheap"  # removed: it is quickly done again
    KEPT = "kept"  # hours or money, and good for its own settings alone: kept, and named
    PORTABLE = "portable"  # every entry is keyed by all that decides it: goes on in the new draft


def runtime(default: Any, description: str, **rules: Any) -> Any:
    """A setting that changes how a step runs but not what it makes (endpoints, concurrency).

    Such settings do not count when a rerun decides whether an output is up to date.
    """
    return _marked("runtime", default, description, rules)


def threshold(default: Any, description: str, **rules: Any) -> Any:
    """A setting that decides whether a result is published, but not what was made.

    It is no part of the fingerprint: a run that was refused goes on from its draft when it is
    changed, and published outputs are judged again by the step's `gate`.
    """
    return _marked("threshold", default, description, rules)


def place(default: Any, description: str, *, on_hub: bool = False, **rules: Any) -> Any:
    """A setting that may name a file or folder here, whose content decides the outputs too.

    `on_hub`: or a model of the Hugging Face Hub.
    """
    extra: dict[str, Any] = {"place": True, "on_hub": on_hub}
    return Field(default, description=description, json_schema_extra=extra, **rules)


def per_task(default: Any, description: str, **rules: Any) -> Any:
    """A setting in which the tasks of one pipeline that run this step differ.

    They share the other settings; this one is an argument of the Kubeflow component besides, a text
    that may be empty.
    """
    return _marked("per_task", default, description, rules)


def by_hand(default: Any, description: str, **rules: Any) -> Any:
    """A setting that people give by hand: an option of the step's command, beside `--set`."""
    return _marked("by_hand", default, description, rules)


def source(default: Any, description: str, *, suffix: str = "", **rules: Any) -> Any:
    """A setting that names the file, folder, `s3://` object or prefix that a step imports.

    Its listing and content count (on S3: names, sizes and ETags), so a source that was changed is
    seen; of the files, those with the ending `suffix`. The store's address is the setting
    `endpoint_url` of the same step.
    """
    extra: dict[str, Any] = {"source": True, "suffix": suffix}
    return Field(default, description=description, json_schema_extra=extra, **rules)


def location(default: str, description: str, **rules: Any) -> Any:
    """A setting that says where something is: a path of this machine, or an address.

    What lies there decides nothing that other settings do not; a cluster has no such paths.
    """
    return _marked("location", default, description, rules)


def _marked(mark: str, default: Any, description: str, rules: Mapping[str, Any]) -> Any:
    return Field(default, description=description, json_schema_extra={mark: True}, **rules)


def is_marked(field: FieldInfo, *marks: str) -> bool:
    """Whether a setting has one of these marks, e.g. "runtime"."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and any(extra.get(mark) for mark in marks)


def _marked_fields(model: type[BaseModel], *marks: str) -> dict[str, Any]:
    """The settings with one of these marks, also in nested sections, in the form of `include`."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if is_marked(field, *marks):
            found[name] = True
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = _marked_fields(kind, *marks)
    return {name: inner for name, inner in found.items() if inner}


# Raises GateError; sees a step's metrics and settings alone.
Gate = Callable[[Mapping[str, int | float], Any], None]
# Of settings: whether they and the inputs alone decide the outputs.
Purity = Callable[[Any], bool]
# Changes of settings that name the present state of what they leave open, e.g. a branch's commit.
Pin = Callable[[Any], Mapping[str, object]]


@dataclass(frozen=True)
class Step:
    """A step as every runner sees it.

    `version`: counts in the fingerprint; raised when the code makes other outputs than before.
    `purity`: whether outputs depend on inputs and settings alone. A step that also looks at the
    world (the model registry, a branch that moves) is run every time, and no runner may cache it.
    `pin`: makes the settings pure by naming what of the world they mean at the moment.
    `gate`: refuses a result by its metrics and the thresholds among the settings.
    """

    name: str
    image: str
    version: int
    gpus: int
    purity: bool | Purity
    pin: Pin | None
    gate: Gate | None
    work: Work
    function: Callable[..., Metrics]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings_type: type[StepSettings]

    @property
    def summary(self) -> str:
        """The first line of the step's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def is_pure(self, settings: StepSettings) -> bool:
        """Whether the outputs depend on inputs and settings alone."""
        return self.purity if isinstance(self.purity, bool) else self.purity(settings)

    def fingerprinted_settings(self, settings: StepSettings) -> dict[str, object]:
        """The settings that decide the content of the outputs."""
        left_out = _marked_fields(self.settings_type, "runtime", "threshold")
        return settings.model_dump(mode="json", exclude=left_out)

    def thresholds(self, settings: StepSettings) -> dict[str, object]:
        """The settings that decide whether a result is published."""
        return settings.model_dump(
            mode="json", include=_marked_fields(self.settings_type, "threshold")
        )

    def judge(self, metrics: Mapping[str, int | float], settings: StepSettings) -> None:
        """Ask the step's gate.

        Raises:
            GateError: the result is not good enough to be published.
        """
        if self.gate:
            self.gate(metrics, settings)

    @property
    def per_task_settings(self) -> tuple[str, ...]:
        """The settings in which tasks of one pipeline differ."""
        return tuple(_marked_fields(self.settings_type, "per_task"))

    @property
    def settings_by_hand(self) -> tuple[str, ...]:
        """The settings that are options of the step's command."""
        return tuple(_marked_fields(self.settings_type, "by_hand"))

    def places(self, settings: StepSettings) -> dict[str, Path]:
        """The files and folders that are named by settings, as far as they are here."""
        named = {name: Path(text) for name, text in self._texts("place", settings).items()}
        return {name: path for name, path in named.items() if path.name and path.exists()}

    def sources(self, settings: StepSettings) -> dict[str, str]:
        """What the step imports: setting -> path or `s3://` address, without empty ones."""
        return {name: text for name, text in self._texts("source", settings).items() if text}

    def locations(self, settings: StepSettings) -> dict[str, str]:
        """Everything that settings name by a path or an address: setting -> text."""
        marks = ("place", "source", "location")
        found = {name: text for mark in marks for name, text in self._texts(mark, settings).items()}
        return {name: text for name, text in found.items() if text}

    def source_suffix(self, name: str) -> str:
        """The ending of the files that count in a source."""
        extra = self.settings_type.model_fields[name].json_schema_extra
        return str(extra.get("suffix", "")) if isinstance(extra, dict) else ""

    def _texts(self, mark: str, settings: StepSettings) -> dict[str, str]:
        names = _marked_fields(self.settings_type, mark)
        return {name: str(getattr(settings, name)) for name in names}


def step(
    *,
    image: str,
    version: int = 1,
    gpus: int = 0,
    is_pure: bool | Purity = True,
    pin: Pin | None = None,
    gate: Gate | None = None,
    work: Work = Work.CHEAP,
) -> Callable[[Callable[..., Metrics]], Step]:
    """Make a function a step that runs in the container image `image` (a folder of `images/`).

    `tests/test_step_versions.py` refuses a step whose code changed under an unchanged `version`.
    """

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
        assert gate or not _marked_fields(settings_type, "threshold"), "thresholds need a gate"
        return Step(
            name=function.__name__,
            image=image,
            version=version,
            gpus=gpus,
            purity=is_pure,
            pin=pin,
            gate=gate,
            work=work,
            function=function,
            inputs=inputs,
            outputs=outputs,
            settings_type=settings_type,
        )

    return wrap


def load_step(name: str) -> Step:
    """The step of that name, from its module in `components/steps.py`.

    Raises:
        ValueError: no such step.
    """
    if name not in STEPS:
        raise ValueError(f"no step '{name}'; the steps are {', '.join(STEPS)}")
    found = getattr(importlib.import_module(STEPS[name]), name)
    assert isinstance(found, Step), f"{STEPS[name]}: `{name}` lacks the @step decorator"
    return found


class Kind(StrEnum):
    """What an artifact is to Kubeflow: the name of its class in `kfp.dsl`."""

    DATASET = "Dataset"
    MODEL = "Model"
    OTHER = "Artifact"


@dataclass(frozen=True)
class Artifact:
    """An artifact: a folder, whose tables are the Parquet files below it, or a file.

    `ending`: that of the file's name; a folder has none.
    `contract`: the module of `data_contracts/` whose promises it keeps, if it makes any.
    `default_path`: where a command puts it if nobody says, with `{now}` for the time.
    """

    description: str
    kind: Kind = Kind.DATASET
    ending: str = ""
    contract: str = ""
    default_path: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return not self.ending


def alike(name: str) -> set[str]:
    """The artifacts that keep the same contract: what was made as one of them is read as another.

    `pack` makes `longgrit`, and `train` reads it as its `dataset`.
    """
    contract = ARTIFACTS[name].contract
    others = {other for other, artifact in ARTIFACTS.items() if artifact.contract == contract}
    return {name} | (others if contract else set())


ARTIFACTS = {
    "grit": Artifact("source records in GRIT's published Parquet layout", contract="grit"),
    "records": Artifact("one row a region of the source, in groups", contract="records"),
    "images": Artifact(
        "downloaded images as WebDataset shards, and a manifest of every URL", contract="images"
    ),
    "candidates": Artifact(
        "region rows whose image is there, duplicates removed", contract="candidates"
    ),
    "uncontaminated": Artifact(
        "candidates of which no image is a test image of an evaluation set", contract="candidates"
    ),
    "detected": Artifact("candidates with the parts that a detector found", contract="candidates"),
    "regions": Artifact("region rows with masks", contract="regions"),
    "captions": Artifact("region rows with verified captions", contract="captions"),
    "contrasted": Artifact(
        "captions with wrong ones beside them (hard negatives)", contract="contrasted"
    ),
    "quarantine": Artifact(
        "a Parquet file of dropped regions with their reasons",
        ending=".parquet",
        contract="quarantine",
    ),
    "quarantines": Artifact("the folder of all steps' quarantine files"),
    "ledger": Artifact("requests, tokens, seconds and cost as JSON", ending=".json"),
    "longgrit": Artifact("the data set: shards, manifest, card and report", contract="longgrit"),
    "dataset": Artifact("a data set in LongGRIT's layout, whoever made it", contract="longgrit"),
    "datasets": Artifact("data sets in LongGRIT's layout, each in a folder of its name"),
    "exports": Artifact("the data set as COCO JSON and Hugging Face Parquet"),
    "checked": Artifact("any artifact whose contract is checked as a whole"),
    "data_docs": Artifact("Great Expectations results as web pages"),
    "publication": Artifact("what was published: DVC revision, counts, contract result"),
    "text_tower": Artifact(
        "a language model made an encoder, or a tokenizer of CLIP's: Hugging Face folder",
        Kind.MODEL,
    ),
    "text_embeddings": Artifact(
        "one embedding a distinct caption, keyed by the caption's hash", contract="text_embeddings"
    ),
    "parent": Artifact("the checkpoint that training starts from", Kind.MODEL),
    "checkpoint": Artifact(
        "a model that pixclip.load opens: safetensors and configuration", Kind.MODEL
    ),
    "curves": Artifact("loss, rates and speed of every step as CSV", Kind.OTHER, ".csv"),
    "evaluation": Artifact("metrics by protocol, every sample's ranks, pictures", Kind.OTHER),
    "registration": Artifact("which version of the registry a checkpoint became", Kind.OTHER),
    "promotion": Artifact(
        "what the policy said of a candidate, check by check",
        Kind.OTHER,
        default_path="runs/promotions/{now}",
    ),
}
