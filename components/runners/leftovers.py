"""End the runs that a killed process of the laptop runner has left in Airflow's database."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.runners.airflow_home import DATABASE, AirflowError
from components.runners.live import FOLDER, Mark, living

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
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            [sys.executable, "-m", "components.operators.end_runs", names],
            env=environment,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    if code:
        raise AirflowError(f"what a killed run has left could not be ended; see {log}")
