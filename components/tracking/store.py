"""Where runs and models are recorded: an MLflow server, or a database file of this project.

A setting wins, then the environment's MLFLOW_TRACKING_URI, then `runs/mlflow/mlflow.db` below the
working folder; the artifacts of a database file lie beside it.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from components.kernel.errors import PipelineError, SettingsError

DEFAULT_DATABASE = Path("runs/mlflow/mlflow.db")
SQLITE = "sqlite:///"
# Set before MLflow is imported: it asks nobody, tells nobody, and speaks only to warn.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(PipelineError):
    """MLflow refused or cannot be reached; the message holds what it said."""


@contextmanager
def told_plainly(what: str) -> Iterator[None]:
    """MLflow's errors within as one of ours, with what was tried.

    Raises:
        TrackingError: MLflow raised an error.
    """
    quieten()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        # Without its cause: a traceback would show the password that an address may hold.
        raise TrackingError(f"{what}: {error}") from None


def quieten() -> None:
    """Keep MLflow and what it is built on from chatting; call before importing it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def resolve_uri(tracking_uri: str) -> str:
    """The address in use; a relative SQLite path becomes absolute, so a `chdir` changes nothing.

    Raises:
        SettingsError: the address names no database file.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{DEFAULT_DATABASE}"
    if not uri.startswith(SQLITE):
        return uri
    path = uri.removeprefix(SQLITE)
    if not path:
        raise SettingsError(f"tracking_uri {uri} names no file; write sqlite:///folder/mlflow.db")
    return f"{SQLITE}{Path(path).absolute()}"


def database_path(uri: str) -> Path | None:
    """The file of a SQLite address; None for a server."""
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def open_client(tracking_uri: str) -> Any:
    """MLflow's client of that address (`""`: the default); a database file is made if missing.

    Raises:
        SettingsError: the address is none.
        TrackingError: nothing usable is there.
    """
    quieten()
    from mlflow import MlflowClient

    uri = resolve_uri(tracking_uri)
    with told_plainly(f"cannot open {uri}"), _alone_at_first(database_path(uri)):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # makes or checks the tables
    return client


@contextmanager
def _alone_at_first(database: Path | None) -> Iterator[None]:
    """One process at a time makes the tables: two at once would break each other's."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.opening").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def experiment_id(client: Any, name: str) -> str:
    """The experiment of that name, made if missing.

    Raises:
        TrackingError: MLflow refused.
    """
    from mlflow.exceptions import MlflowException

    with told_plainly(f"cannot open the experiment '{name}'"):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=_beside(client, name)))
            except MlflowException:  # another process made it in between
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the MLflow experiment '{name}' was deleted; restore it or name another one"
            )
    return str(found.experiment_id)


def _beside(client: Any, name: str) -> str | None:
    """The artifacts' folder beside a database file; a server chooses its own."""
    database = database_path(client.tracking_uri)
    return (database.parent / "artifacts" / name).as_uri() if database else None
