"""Where runs and models are recorded: an MLflow server, or a database file of this project.

A setting wins, then the environment's MLFLOW_TRACKING_URI, then `runs/mlflow/mlflow.db` below the
working folder; the artifacts of a database file lie beside it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from components.core.digests import file_digests, file_sha256
from components.core.errors import InputError, PipelineError, SettingsError
from components.registry.database import (
    ARTIFACTS,
    lock_file,
    make_whole,
    require_current,
    set_location,
)

log = logging.getLogger(__name__)

DEFAULT_DATABASE = Path("runs/mlflow/mlflow.db")
SQLITE = "sqlite:///"
# Set before MLflow is imported: no update check, no telemetry, and only warnings in the log.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
# For the first request to a server: MLflow's own patience of minutes would hide a wrong address.
FIRST_REQUEST = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
MAX_TOLD_CHARS = 1000  # of what MLflow, or whoever answers in its place, says
DATABASE_ENDINGS = (".db", ".sqlite", ".sqlite3")
HTTP, DATABASES = ("http://", "https://"), ("postgresql", "mysql", "mssql")
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


class TrackingError(PipelineError):
    """MLflow refused or cannot be reached; the message holds what it said."""


@contextmanager
def mlflow_errors(what: str) -> Iterator[None]:
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
        raise TrackingError(f"{what}: {str(error)[:MAX_TOLD_CHARS]}") from None


def quieten() -> None:
    """Keep MLflow and what it is built on from chatting; call before importing it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def resolve_uri(tracking_uri: str) -> str:
    """The address in use; a relative SQLite path becomes absolute, so a `chdir` changes nothing.

    Raises:
        SettingsError: the address is none, or names no database file.
    """
    uri = tracking_uri.strip() or os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    uri = uri or f"{SQLITE}{DEFAULT_DATABASE}"
    scheme, colon, rest = uri.partition(":")
    if scheme.partition("+")[0] != "sqlite":
        _require_address(uri)
        return uri
    path = f"{scheme}{colon}{rest}".removeprefix(f"{scheme}:///")
    if not rest.startswith("///") or path in ("", ":memory:"):
        raise SettingsError(f"tracking_uri {uri} names no file; write sqlite:///folder/mlflow.db")
    absolute = str(Path(path.partition("?")[0]).absolute())
    if "?" in absolute:  # it would begin the address's parameters
        raise SettingsError(f"MLflow takes no database below a folder with '?': {absolute}")
    return f"{SQLITE}{absolute}"


def _require_address(uri: str) -> None:
    """Refuse what MLflow would fail on without saying so."""
    if not urlsplit(uri).scheme and Path(uri).suffix in DATABASE_ENDINGS:
        raise SettingsError(f"tracking_uri {uri}: write sqlite:///{uri} for a database file")
    if uri.startswith("postgres:"):
        raise SettingsError(f"tracking_uri {uri}: write postgresql:// instead of postgres://")
    try:
        parts = urlsplit(uri)
        is_one = bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or a bracket that is not closed
        is_one = False
    if uri.startswith(HTTP) and not is_one:
        raise SettingsError(f"tracking_uri {uri} is no address; write https://host:5000")


def database_path(uri: str) -> Path | None:
    """The file of a SQLite address; None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def open_client(tracking_uri: str) -> Any:
    """MLflow's client of that address (`""`: the default); a database file is made if missing.

    Raises:
        SettingsError: the address is none, or its driver is not installed.
        InputError: the tables there are not those of this MLflow.
        TrackingError: nothing usable is there.
    """
    quieten()
    from mlflow import MlflowClient

    uri = resolve_uri(tracking_uri)
    database = database_path(uri)
    with mlflow_errors(f"cannot open {uri}"), _driver_named(uri):
        if database:
            _make_alone(database)
        elif uri.startswith(DATABASES):
            require_current(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        with _impatient():
            _ask(client)
    return client


def _ask(client: Any) -> None:
    """Refuse a server that answers, but not as MLflow does: a log-in page, a proxy, another API."""
    from google.protobuf.json_format import ParseError

    try:
        client.search_experiments(max_results=1)
    except (ParseError, RecursionError) as error:
        told = str(error)[:MAX_TOLD_CHARS]
        raise TrackingError(
            f"{client.tracking_uri} answers, but not as MLflow does: {told}; is it its address?"
        ) from None


def _make_alone(database: Path) -> None:
    """One process at a time makes the tables."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(database.with_name(f".{database.name}.opening"), f"opening {database}"):
            make_whole(database)
    except OSError as error:
        raise TrackingError(
            f"cannot keep a database at {database}: {error.strerror}; name another place by "
            "tracking_uri (MLFLOW_TRACKING_URI)"
        ) from None
    except sqlite3.Error as error:
        raise TrackingError(
            f"cannot open {SQLITE}{database}: {error}; if it is damaged, put an earlier copy "
            "in its place, or move it away, and a new one is made"
        ) from None


@contextmanager
def _driver_named(uri: str) -> Iterator[None]:
    """A missing driver of a database as an error that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = PACKAGES.get(error.name or "", error.name)
        raise SettingsError(
            f"tracking_uri {uri} needs the Python package {package}, which is not installed: "
            f"pip install '{package}', in images too"
        ) from None
    except ImportError as error:  # it is there, but not what it is built on
        raise SettingsError(f"tracking_uri {uri}: its driver does not load: {error}") from None


@contextmanager
def _impatient() -> Iterator[None]:
    """Ask a server a few times only, unless the environment says how often."""
    ours = {name: value for name, value in FIRST_REQUEST.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def experiment_id(client: Any, name: str) -> str:
    """The experiment of that name, made if missing.

    Raises:
        TrackingError: MLflow refused.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_errors(f"cannot open the experiment '{name}'"):
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
        _follow(client, found)
    return str(found.experiment_id)


def _beside(client: Any, name: str) -> str | None:
    """The artifacts' folder beside a database file; a server chooses its own."""
    database = database_path(client.tracking_uri)
    return (database.parent / ARTIFACTS / name).as_uri() if database else None


def _follow(client: Any, experiment: Any) -> None:
    """Keep new files beside a database that was moved or copied, not where it came from."""
    database, wanted = database_path(client.tracking_uri), _beside(client, experiment.name)
    old = str(experiment.artifact_location)
    if database and wanted and old != wanted and _tail(old) == _tail(wanted):
        log.warning("%s was elsewhere before: new files go to %s, not to %s", database, wanted, old)
        set_location(database, str(experiment.experiment_id), wanted)


def _tail(location: str) -> list[str]:
    """The part of a folder's address that moving does not change."""
    return location.removesuffix("/").rsplit("/", 2)[1:] if location.startswith("file:") else []


def found_beside(uri: str, location: str) -> str:
    """Where a file's address leads now, if it lay beside a database that was moved since."""
    database, (_, mark, rest) = database_path(uri), location.partition(f"/{ARTIFACTS}/")
    if not (database and mark and location.startswith("file:")):
        return location
    here = database.parent / ARTIFACTS / url2pathname(rest)
    is_gone = not Path(url2pathname(urlsplit(location).path)).exists()
    return here.as_uri() if is_gone and here.exists() else location


SUMS_NAME = "SHA256SUMS"


def write_sums(folder: Path) -> str:
    """Write the list of every file below a folder and give the list's own sha256."""
    sums = folder / SUMS_NAME
    digests = {name: digest for name, digest in file_digests(folder).items() if name != SUMS_NAME}
    sums.write_text(
        "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())), encoding="utf-8"
    )
    return file_sha256(sums)


def require_sums(folder: Path, digest: str) -> None:
    """Refuse a folder that is not, file by file, the one whose list has this sha256.

    Raises:
        InputError: names what is missing, changed or too much.
    """
    require_files(folder, read_sums(folder / SUMS_NAME, digest))


def read_sums(sums: Path, digest: str) -> dict[str, str]:
    """The sha256 of every registered file by its path, of the list that has this sha256.

    Raises:
        InputError: there is no such list.
    """
    if not sums.is_file() or file_sha256(sums) != digest:
        raise InputError(
            f"{sums} is missing or is not the list that was registered (sha256 {digest}): the "
            "store is damaged or was changed; delete the version in MLflow and register again"
        )
    lines = (line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines())
    return {name: file_digest for file_digest, name in lines}


def require_files(folder: Path, wanted: Mapping[str, str]) -> None:
    """Refuse a folder that does not hold exactly these files, the list itself aside.

    Raises:
        InputError: names what is missing, changed or too much.
    """
    found = {name: value for name, value in file_digests(folder).items() if name != SUMS_NAME}
    wrong = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if wrong:
        raise InputError(
            f"{len(wrong)} file(s) of {folder} are not as registered, e.g. {', '.join(wrong[:3])}; "
            "download again; if the store is damaged, delete the version in MLflow and register "
            "its checkpoint again"
        )
