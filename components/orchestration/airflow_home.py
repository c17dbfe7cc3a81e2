"""Airflow's home on this machine: below the project, whatever the environment says of another.

The database is made beside its place and renamed into it, so that a kill leaves none or a whole
one.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import components
import pixclip
from components.core.errors import PipelineError
from components.core.process import sharing_cores
from components.orchestration.live import FOLDER, Mark, living

AIRFLOW_FOLDER = ".cache/airflow"
DATABASE = "airflow.db"
CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
GPU_POOL = "gpu"  # of the DAGs that train: a task at a time, as training takes all cores
# What names another Airflow, place of code or repository than a step's own, or is for another
# program of Python: with warnings as errors no Airflow starts.
FOREIGN_PREFIXES = ("AIRFLOW_", "_AIRFLOW_", "KFP_", "_KFP_", "PYTHONPATH", "PYTHONHOME")
FOREIGN = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "DVC_ROOT", "DVC_STAGE", "VIRTUAL_ENV",
    "PYTHONIOENCODING", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONSTARTUP", "PYTHONWARNINGS",
}  # fmt: skip
NO_PROXY = "localhost,127.0.0.1"


class AirflowError(PipelineError):
    """Airflow cannot be made ready on this machine."""


def airflow_environment(home: Path, port: int = 8080) -> dict[str, str]:
    """The environment of every Airflow command; of the caller's, nothing that is about Airflow."""
    folder = home / AIRFLOW_FOLDER
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_PREFIXES) and name not in FOREIGN
    }
    # `airflow standalone` and dvc.yaml start programs by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    direct = {
        name: f"{kept[name]},{NO_PROXY}" if kept.get(name) else NO_PROXY
        for name in ("NO_PROXY", "no_proxy")
    }
    return {
        **sharing_cores(kept),
        **direct,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(_code()),
        "PYTHONUTF8": "1",
        "AIRFLOW_HOME": str(folder),
        # airflow.cfg holds the places of the clone it was made in, which may be another.
        CONNECTION: _connection(folder / DATABASE),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_FOLDER": str(folder / "logs" / "dags"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(
            home / "components" / "orchestration" / "airflow" / "plugins"
        ),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PIXCLIP_HOME": str(home),
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "true",
    }


def airflow_command(*arguments: str) -> list[str]:
    """A command of Airflow."""
    return [sys.executable, "-m", "airflow", *arguments]


def prepare(environment: Mapping[str, str]) -> None:
    """Make the database and the pool for tasks with a GPU, once for each version of Airflow.

    Raises:
        AirflowError: says where the output of the failed command is, or who is in the way.
    """
    folder = Path(environment["AIRFLOW_HOME"])
    marker = folder / f".prepared-{version('apache-airflow-core')}"
    database = folder / DATABASE
    if marker.exists() and database.exists():
        return
    with _alone(folder):
        if marker.exists() and database.exists():  # by another terminal, meanwhile
            return
        was_ready = database.exists() and any(folder.glob(".prepared-*"))
        if was_ready and living(folder / FOLDER):
            raise AirflowError(
                f"the database {database} is of another version of Airflow and in use: end `make "
                "airflow` and the runs in other terminals first"
            )
        if not was_ready:  # a killed process has left halves
            _remove(database)
            (folder / "airflow.cfg").unlink(missing_ok=True)
        _make_database(environment, database, was_ready)
        marker.touch()


def _make_database(environment: Mapping[str, str], database: Path, is_upgrade: bool) -> None:
    new = database.with_name(f"{DATABASE}.new")
    _remove(new)
    if is_upgrade:
        with (
            contextlib.closing(sqlite3.connect(database)) as old,
            contextlib.closing(sqlite3.connect(new)) as copy,
        ):
            old.backup(copy)
    log = database.with_name("prepare.log")
    for arguments in (["db", "migrate"], ["pools", "set", GPU_POOL, "1", "tasks with a GPU"]):
        if not _succeeds(
            airflow_command(*arguments), {**environment, CONNECTION: _connection(new)}, log
        ):
            raise AirflowError(f"`airflow {' '.join(arguments)}` failed; see {log}")
    _remove(database)
    new.rename(database)


def _succeeds(command: Sequence[str], environment: Mapping[str, str], log: Path) -> bool:
    """Run a command whose output is added to a log; whether it ended well."""
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False)
    return done.returncode == 0


def _remove(database: Path) -> None:
    """Remove a database with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)


def _connection(database: Path) -> str:
    return f"sqlite:///{database}"


def _code() -> list[str]:
    """The folders of this very code: an environment may have been made for another clone."""
    folders = [Path(package.__path__[0]).parent for package in (components, pixclip)]
    return [str(path) for path in dict.fromkeys(folders)]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".preparing.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise AirflowError(
            f"cannot write Airflow's folder {folder}: {error.strerror}; PIXCLIP_HOME names the "
            "project's folder"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Of `dags test`, which is how the laptop runner runs a DAG: a scheduler's own runs go on with it.
UNFINISHED = """
    SELECT dag_id, run_id, logical_date, created_at FROM dag_run
    WHERE triggered_by = 'TEST' AND state IN ('running', 'queued')
"""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that Airflow's database holds for running."""

    dag_id: str
    run_id: str
    logical_date: datetime
    created: datetime

    def may_be_of(self, mark: Mark) -> bool:
        """Whether a living process runs it, or may do so."""
        if mark.kind == "run":
            return (mark.dag_id, datetime.fromisoformat(mark.logical_date)) == (
                self.dag_id,
                self.logical_date,
            )
        # `laptop airflow dags test …` in another terminal: nobody knows which run is its own.
        return mark.kind == "command" and self.created.timestamp() >= mark.began_s


def end_leftovers(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """End what dead processes have left: their processes, and their runs in the database.

    Raises:
        AirflowError: the database is damaged, or Airflow cannot change it.
    """
    folder = Path(environment["AIRFLOW_HOME"])
    marks = living(folder / FOLDER)
    dead = [
        run
        for run in unfinished_runs(folder / DATABASE)
        if not any(run.may_be_of(mark) for mark in marks)
    ]
    if not dead:
        return
    _end(dead, environment)
    for run in dead:
        say(f"ended a run that a killed process had left: {run.dag_id}, {run.run_id}")


def unfinished_runs(database: Path) -> list[UnfinishedRun]:
    """The runs of `dags test` that have not ended, as the database says.

    Raises:
        AirflowError: it cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
            rows = connection.execute(UNFINISHED).fetchall()
    except sqlite3.Error as error:
        raise AirflowError(
            f"Airflow's database {database} cannot be read: {error}. It holds the history of runs "
            "on this machine and none of their results: remove it, and it is made anew"
        ) from None
    return [UnfinishedRun(dag, run, _time(date), _time(made)) for dag, run, date, made in rows]


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text or "1970-01-01").replace(tzinfo=UTC)


def _end(runs: Sequence[UnfinishedRun], environment: Mapping[str, str]) -> None:
    log = Path(environment["AIRFLOW_HOME"]) / "end_runs.log"
    names = json.dumps([[run.dag_id, run.run_id] for run in runs])
    log.write_bytes(b"")
    command = [sys.executable, "-m", "components.orchestration.airflow.end_runs", names]
    if not _succeeds(command, environment, log):
        raise AirflowError(f"what a killed run has left could not be ended; see {log}")
