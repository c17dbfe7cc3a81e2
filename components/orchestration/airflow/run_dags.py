"""Run DAGs one after another in this process, without a scheduler, and tell what becomes of tasks.

    python -m components.orchestration.airflow.run_dags PIPE JOB…

The laptop runner calls it. A job is JSON: `dag_id`, `logical_date`, `conf`, `log`. All output of a
DAG goes to its log. The first DAG that fails ends it.
"""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.sdk.exceptions import AirflowFailException

from components.orchestration.telling import FAILURE_TOLD, INDENT, tell, tell_to


class Telling:
    """Tells when a task begins and ends, and why one failed; Airflow calls it."""

    def __init__(self) -> None:
        self.has_told_failure = False
        self._started = 0.0

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """A task begins."""
        index = task_instance.map_index
        is_mapped = index is not None and index >= 0
        tell(f"{task_instance.task_id}[{index}]" if is_mapped else task_instance.task_id)
        self._started = time.monotonic()

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """A task has done its work."""
        self._tell_time()

    @hookimpl
    def on_task_instance_failed(
        self, previous_state: Any, task_instance: Any, error: str | BaseException | None
    ) -> None:
        """A task failed; it may be tried again."""
        self.has_told_failure = True
        is_final = isinstance(error, AirflowFailException)  # whose text names the step's own error
        tell(INDENT + (str(error) if is_final else f"{type(error).__name__}: {error}"))
        self._tell_time()

    def _tell_time(self) -> None:
        tell(f"{INDENT}{time.monotonic() - self._started:.1f} s")


def run_dag(dag_id: str, logical_date: str, conf: dict[str, Any]) -> bool:
    """Run a DAG as `airflow dags test` does; whether it succeeded."""
    from airflow.providers_manager import ProvidersManager
    from airflow.utils.cli import get_bagged_dag
    from airflow.utils.state import DagRunState

    ProvidersManager().initialize_providers_configuration()
    dag = get_bagged_dag(bundle_names=None, dag_id=dag_id)
    run = dag.test(logical_date=datetime.fromisoformat(logical_date), run_conf=conf)
    return bool(run.state == DagRunState.SUCCESS)


def main() -> None:
    """Run the jobs of the command line."""
    from airflow.sdk.listener import get_listener_manager

    pipe, *jobs = sys.argv[1:]
    tell_to(int(pipe))
    telling = Telling()
    get_listener_manager().add_listener(telling)
    for text in jobs:
        job = json.loads(text)
        write_to(Path(job["log"]))
        if not run_dag(job["dag_id"], job["logical_date"], job["conf"]):
            sys.exit(FAILURE_TOLD if telling.has_told_failure else 1)


def write_to(log: Path) -> None:
    """Let all output of this process and of its children go to a file."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream_number in (1, 2):
        os.dup2(file, stream_number)
    os.close(file)


if __name__ == "__main__":
    main()
