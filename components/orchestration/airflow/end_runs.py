"""End runs whose process was killed, and their tasks, in Airflow's database.

    python -m components.orchestration.airflow.end_runs '[["longgrit_build", "manual__2026-…"]]'

The laptop runner calls it. Such a run would be "running" for ever: later runs of its DAG would wait
for it, and a scheduler would take it up again over the same folder.
"""

import json
import sys
from collections.abc import Iterable


def end_runs(runs: Iterable[tuple[str, str]]) -> int:
    """Set runs (DAG id, run id) that have not ended to failed; gives how many there were."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, State, TaskInstanceState
    from sqlalchemy import select

    num_ended = 0
    with create_session() as session:
        for dag_id, run_id in runs:
            query = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
            run = session.scalar(query)
            if run is None or run.state not in State.unfinished_dr_states:
                continue
            for task in run.get_task_instances(session=session):
                if task.state in (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING):
                    task.set_state(TaskInstanceState.FAILED, session=session)
                elif task.state in State.unfinished:
                    task.set_state(TaskInstanceState.SKIPPED, session=session)
            run.set_state(DagRunState.FAILED)
            num_ended += 1
    return num_ended


if __name__ == "__main__":
    end_runs([(dag_id, run_id) for dag_id, run_id in json.loads(sys.argv[1])])
