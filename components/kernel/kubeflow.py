"""What runs inside a Kubeflow component: the step, on the paths of the component's artifacts.

`components/<step>/component.py` is the shim that calls `run_component`. Nothing here imports kfp,
so that the image of a step needs no more of it than its executor.
"""

import json
import os
import select
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from components.kernel import errors
from components.kernel.errors import PipelineError
from components.kernel.logs import quieten_libraries
from components.kernel.process import name_user, share_cores
from components.kernel.receipts import Receipt
from components.kernel.settings import refuse_credentials
from components.kernel.state import run_kept, state_folder
from components.kernel.step import Metrics, load_step

METRICS = "metrics"


class KfpArtifact(Protocol):
    """The part of a kfp artifact that is used here; setting `path` moves the artifact there."""

    path: str


class KfpMetrics(KfpArtifact, Protocol):
    """kfp's Metrics artifact."""

    def log_metric(self, metric: str, value: float) -> None:
        """Record one number."""


def run_component(
    name: str,
    *,
    inputs: Mapping[str, KfpArtifact],
    outputs: Mapping[str, KfpArtifact],
    metrics: KfpMetrics,
    settings: str,
    destinations: str,
) -> Receipt:
    """Run a step on a component's artifacts and log its metrics.

    `settings` is JSON text, because kfp makes floats of the integers inside a dictionary.
    `destinations` is JSON too: output name -> the path where it is published. With it, drafts
    are found again after a kill and nothing is copied. Without it, `PIXCLIP_STATE_FOLDER` gives
    that: a folder that outlives the task (see `state.py`). The outcome (metrics, or
    the error) is written to the metrics artifact.
    """
    stop_with_the_runner()
    name_user()
    share_cores()
    quieten_libraries()
    refuse_credentials({"destinations": json.loads(destinations)}, name)
    for output, path in json.loads(destinations).items():
        {**outputs, METRICS: metrics}[output].path = path
    places = {key: Path(artifact.path) for key, artifact in outputs.items()}
    has_places = bool(json.loads(destinations))
    try:
        receipt = run_kept(
            load_step(name),
            {key: Path(artifact.path) for key, artifact in inputs.items()},
            places,
            json.loads(settings),
            None if has_places else state_folder(),
        )
    except PipelineError as error:
        write_outcome(Path(metrics.path), error)
        raise
    write_outcome(Path(metrics.path), receipt.metrics)
    for metric, value in receipt.metrics.items():
        metrics.log_metric(metric, float(value))
    return receipt


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
