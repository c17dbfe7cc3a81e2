"""A run in MLflow: what a step was asked, what it measured, and how it ended.

with tracked_run("train", tracking_uri="", experiment="pixclip", tags={}, params={}) as run:
    run.log(step=1, metrics={"loss": 2.5})
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.registry.store import experiment_id, mlflow_errors, open_client

BATCH_SIZE = 1000  # metrics that MLflow takes in one request
PARAMS_PER_REQUEST = 100
MAX_PARAM_CHARS = 6000


class Run:
    """An open run; metrics are sent in batches."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client, self._waiting = client, list[Any]()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record numbers of a training step; those that are not finite are left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        # A database keeps no NaN, and one such number would refuse the whole batch.
        self._waiting += [
            Metric(name, float(value), now_ms, step)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        if len(self._waiting) >= BATCH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting.

        Raises:
            TrackingError: MLflow refused.
        """
        with mlflow_errors(f"cannot log metrics to run {self.run_id}"):
            while self._waiting:
                self._client.log_batch(self.run_id, metrics=self._waiting[:BATCH_SIZE])
                del self._waiting[:BATCH_SIZE]

    def tag(self, name: str, value: str) -> None:
        """Tag the run.

        Raises:
            TrackingError: MLflow refused.
        """
        with mlflow_errors(f"cannot tag run {self.run_id}"):
            self._client.set_tag(self.run_id, name, value)

    def artifact(self, path: Path) -> None:
        """Keep a file, or a folder as a whole, with the run.

        Raises:
            TrackingError: MLflow refused.
        """
        with mlflow_errors(f"cannot keep {path} with run {self.run_id}"):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
            else:
                self._client.log_artifact(self.run_id, str(path))

    def end(self, status: str) -> None:
        """Send what is waiting and mark the run as FINISHED, FAILED or KILLED.

        Raises:
            TrackingError: MLflow refused.
        """
        self.flush()
        with mlflow_errors(f"cannot end run {self.run_id}"):
            self._client.set_terminated(self.run_id, status)


@contextmanager
def tracked_run(
    name: str,
    *,
    tracking_uri: str = "",
    experiment: str = "pixclip",
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str = "",
) -> Iterator[Run]:
    """A run that ends FINISHED, KILLED (Ctrl-C, SIGTERM as SystemExit) or FAILED.

    Args:
        tracking_uri: see `store.py`; empty: the default.
        params: nested mappings become dotted names.
        run_id: of a run to go on with, after a kill; its parameters stay as they are. If it is
            gone, or was of another server, a new one begins.

    Raises:
        TrackingError: MLflow refused or cannot be reached.
    """
    client = open_client(tracking_uri)
    with mlflow_errors(f"cannot start the run '{name}'"):
        if run_id and _is_there(client, run_id):
            client.update_run(run_id, status="RUNNING")
        else:
            created = client.create_run(experiment_id(client, experiment), run_name=name)
            run_id = created.info.run_id
            _log_params(client, run_id, params or {})
        for key, value in (tags or {}).items():
            client.set_tag(run_id, key, value)
    run = Run(client, run_id)
    try:
        yield run
    except BaseException as error:
        run.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.end("FINISHED")


def _is_there(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        stage: str = client.get_run(run_id).info.lifecycle_stage
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return stage == "active"  # not deleted on MLflow's pages


def _log_params(client: Any, run_id: str, params: Mapping[str, object]) -> None:
    from mlflow.entities import Param

    flat = [Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in dotted(params)]
    for start in range(0, len(flat), PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=flat[start : start + PARAMS_PER_REQUEST])


def dotted(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested values under dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
