"""A step as a Kubeflow component, and what runs inside: the step, on the component's artifacts.

`component_of` makes the component of the step's signature: a function of kfp's artifacts that calls
`run_component`. What runs inside imports no kfp, so that the image of a step needs no more of it
than its executor.
"""

import json
import linecache
import logging
import math
import os
import select
import stat
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from components.core import errors
from components.core.errors import PipelineError, SettingsError
from components.core.pointers import follow, read_pointer
from components.core.process import name_user, quieten_libraries, share_cores, take_own_s3_names
from components.core.receipts import Receipt
from components.core.settings import refuse_credentials
from components.core.state import run_kept, state_folder
from components.core.step import ARTIFACTS, Kind, Metrics, Step, load_step

log = logging.getLogger(__name__)

METRICS = "metrics"
MAX_COLUMNS = 100
COMPONENT = '''\
def {name}(
    {parameters},
) -> None:
    """{summary}"""
    from {module} import run_component

    run_component(
        "{name}",
        {arguments},
    )
'''


class KfpArtifact(Protocol):
    """The part of a kfp artifact that is used here; setting `path` moves the artifact there."""

    path: str
    uri: str  # where the runner keeps it: a path here, or an address
    metadata: dict[str, Any]


class KfpMetrics(KfpArtifact, Protocol):
    """kfp's Metrics artifact."""

    def log_metric(self, metric: str, value: float) -> None:
        """Record one number."""


def component_of(step: Step) -> Any:
    """The step as a Kubeflow component, whose program calls the step in the step's image."""
    from kfp import dsl

    words = ("Input", "Output", "Metrics", *Kind)
    known = {word: getattr(dsl, word) for word in words}
    function = function_of(step.name, component_source(step), known)
    return dsl.component(function, base_image=image(step.image), install_kfp_package=False)


def function_of(name: str, source: str, known: Mapping[str, Any]) -> Any:
    """A function for a component, of its source; `known` are the names that it is written with."""
    file, namespace = f"<component {name}>", dict(known)
    # kfp reads the function's source as `inspect` does, which asks here.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)  # noqa: S102  # made of names of artifacts
    return namespace[name]


def component_source(step: Step) -> str:
    """The program of a step's component: its signature as a function of kfp's artifacts.

    Beside the artifacts it takes the settings, where the outputs are to be published (both as JSON
    text) and each setting in which the tasks of one pipeline differ.
    """
    own = step.per_task_settings
    texts = {"settings": "{}", "destinations": "{}"} | dict.fromkeys(own, "")
    parameters = [f"{name}: Input[{ARTIFACTS[name].kind}]" for name in step.inputs]
    parameters += [f"{name}: Output[{ARTIFACTS[name].kind}]" for name in step.outputs]
    parameters += ["metrics: Output[Metrics]"]
    parameters += [f'{name}: str = "{default}"' for name, default in texts.items()]
    arguments = [
        f"inputs={_dictionary(step.inputs)}",
        f"outputs={_dictionary(step.outputs)}",
        *(f"{name}={name}" for name in ("metrics", "settings", "destinations")),
        *([f"per_task={_dictionary(own)}"] if own else []),
    ]
    return COMPONENT.format(
        name=step.name,
        parameters=",\n    ".join(parameters),
        summary=step.summary.replace("\\", r"\\").replace('"', r"\""),
        module=__name__,
        arguments=",\n        ".join(arguments),
    )


def _dictionary(names: Iterable[str]) -> str:
    """Source of a dictionary of variables by their names: on one line if that has room."""
    items = [f'"{name}": {name}' for name in names]
    line = f"{{{', '.join(items)}}}"
    if len(f"        outputs={line},") <= MAX_COLUMNS:
        return line
    return "".join(["{\n", *(f"            {item},\n" for item in items), "        }"])


def run_component(
    name: str,
    *,
    inputs: Mapping[str, KfpArtifact],
    outputs: Mapping[str, KfpArtifact],
    metrics: KfpMetrics,
    settings: str,
    destinations: str,
    per_task: Mapping[str, str] | None = None,
) -> Receipt:
    """Run a step on a component's artifacts and log its metrics.

    `settings` is JSON text, because kfp makes floats of the integers inside a dictionary; of
    `per_task`, those that are no empty text win over it.
    `destinations` is JSON too: output name -> the path where it is published. With it, drafts
    are found again after a kill and nothing is copied. Without it, `PIXCLIP_STATE_FOLDER` gives
    that: a folder that outlives the task (see `state.py`). Where the runner keeps artifacts at an
    address, the outputs are then pointers into that folder. Inputs that are pointers are followed.
    The outcome (metrics, or the error) is written to the metrics artifact.
    """
    stop_with_the_runner()
    name_user()
    share_cores()
    quieten_libraries()
    take_own_s3_names()
    chosen = json.loads(destinations)
    refuse_credentials({"destinations": chosen}, name)
    own = {key: text for key, text in (per_task or {}).items() if text}
    state = state_folder()
    try:
        move_outputs({**outputs, METRICS: metrics}, chosen, name)
        receipt = run_kept(
            load_step(name),
            {key: follow(key, Path(artifact.path), state) for key, artifact in inputs.items()},
            {key: Path(artifact.path) for key, artifact in outputs.items()},
            json.loads(settings) | own,
            None if chosen else state,
            points=any(is_remote(artifact.uri) for artifact in outputs.values()),
        )
    except PipelineError as error:
        write_outcome(Path(metrics.path), error)
        raise
    write_outcome(Path(metrics.path), receipt.metrics)
    tell_kubeflow(outputs, metrics, receipt)
    return receipt


def is_remote(uri: str) -> bool:
    """Whether a runner keeps an artifact at an address, e.g. `s3://…`, not at a path here."""
    return "://" in uri and not uri.startswith("file://")


def move_outputs(
    outputs: Mapping[str, KfpArtifact], destinations: Mapping[str, str], name: str
) -> None:
    """Let the outputs be published at these paths.

    Raises:
        SettingsError: the runner carries them to an address, and would not find them there.
    """
    for output, path in destinations.items():
        if is_remote(outputs[output].uri):
            raise SettingsError(
                f"{name}: destinations.{output} is {path}, but this runner keeps the output at "
                f"{outputs[output].uri} and hands it on from there; leave destinations out (a "
                "volume that outlives tasks is named by PIXCLIP_STATE_FOLDER)"
            )
        outputs[output].path = path


def tell_kubeflow(
    outputs: Mapping[str, KfpArtifact], metrics: KfpMetrics, receipt: Receipt
) -> None:
    """Metrics and what pointers lead to, for Kubeflow's pages; its JSON knows no NaN.

    On a server the metrics are also a line of the log: of a run's outputs it tells no content.
    """
    finite = {name: value for name, value in receipt.metrics.items() if math.isfinite(value)}
    for metric, value in finite.items():
        metrics.log_metric(metric, float(value))
    for metric in receipt.metrics.keys() - finite.keys():
        log.warning("%s: %s is no number that Kubeflow can show", receipt.step, metric)
    if is_remote(metrics.uri):
        log.info("pixclip-metrics %s %s", receipt.step, json.dumps(finite, sort_keys=True))
    for artifact in outputs.values():
        pointer = read_pointer(Path(artifact.path))
        if pointer:
            artifact.metadata.update(pointer.model_dump())


def write_outcome(path: Path, outcome: "Metrics | PipelineError") -> None:
    """Write metrics, or an error that another process can raise again."""
    content: dict[str, Any] = {"metrics": outcome}
    if isinstance(outcome, PipelineError):
        kind = next(c for c in type(outcome).__mro__ if c.__module__ == errors.__name__)
        told = {"kind": kind.__name__, "message": str(outcome), "facts": vars(outcome)}
        content = {"error": told}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True, default=str) + "\n", encoding="utf-8")


def read_outcome(path: Path) -> Metrics:
    """The metrics of a finished component.

    Raises:
        PipelineError: the very error that the step raised, of the same class.
        FileNotFoundError: the component ended without an outcome (it was killed, or has a bug).
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if "error" in content:
        raise _restore(**content["error"])
    metrics: Metrics = content["metrics"]
    return metrics


def _restore(kind: str, message: str, facts: Mapping[str, Any]) -> PipelineError:
    # Past the constructors: they compose a message from the facts, and here it exists already.
    cls = getattr(errors, kind)
    error: PipelineError = cls.__new__(cls, message)
    error.args = (message,)
    vars(error).update(facts)
    return error


def stop_with_the_runner() -> None:
    """End this process at once when the process that reads its output is gone.

    A killed Airflow task would otherwise leave the step running, and its retry would write to the
    same draft. Dying here loses nothing: a draft is resumed.
    """
    try:
        output = sys.__stdout__.fileno() if sys.__stdout__ else -1
        is_pipe = stat.S_ISFIFO(os.fstat(output).st_mode)
    except (OSError, ValueError):
        return
    if is_pipe:
        threading.Thread(target=_wait_for_reader_to_go, args=(output,), daemon=True).start()


def _wait_for_reader_to_go(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # POLLERR, which says that nobody reads any more, needs no asking
    poll.poll()
    os._exit(1)


# kfp's Docker runner pulls whatever is not there under exactly this name and tag. A name of the
# reserved domain example.test can only be built here, never be fetched from a stranger.
DEFAULT_REPOSITORY, DEFAULT_TAG = "example.test", "dev"


def image(name: str) -> str:
    """The full name of an image, e.g. `example.test/pixclip-data:dev`.

    A cluster sets `PIXCLIP_IMAGE_REPOSITORY` and `PIXCLIP_IMAGE_TAG` before components are
    compiled.
    """
    repository = os.environ.get("PIXCLIP_IMAGE_REPOSITORY", DEFAULT_REPOSITORY)
    tag = os.environ.get("PIXCLIP_IMAGE_TAG", DEFAULT_TAG)
    return f"{repository}/pixclip-{name}:{tag}"
