"""Waits for a run on Kubeflow Pipelines in Airflow's triggerer, where no worker is held."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from components.orchestration.airflow.kubeflow.hook import KubeflowHook
from components.orchestration.kubeflow.client import AsyncClient, KubeflowError
from components.orchestration.kubeflow.runs import DeadlineError, Runs, Timing, state_of

log = logging.getLogger(__name__)
KILL_PATIENCE_S = 25.0  # Airflow gives `on_kill` 30 s
WAITING = "deferred"
STOPPING: set["asyncio.Task[None]"] = set()  # an event loop forgets tasks that nobody holds


class RunTrigger(BaseTrigger):
    """Fires once when a run has ended, or cannot be waited for.

    Args:
        deadline: seconds since 1970, when the run is stopped; None: never. It is a moment, so that
            a restarted triggerer does not begin to count again.
        lost: ids of which no run may live beside this one.
        poll_s, settle_s, patience_s: those of `Timing`.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        run_id: str,
        deadline: float | None = None,
        lost: Sequence[str] = (),
        poll_s: float,
        settle_s: float,
        patience_s: float,
    ) -> None:
        super().__init__()
        self.conn_id, self.run_id = conn_id, run_id
        self.deadline, self.lost = deadline, tuple(lost)
        self.timing = Timing(poll_s, settle_s, patience_s)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        kept = {
            "conn_id": self.conn_id,
            "run_id": self.run_id,
            "deadline": self.deadline,
            "lost": list(self.lost),
            **vars(self.timing),
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; the event says how the run ended, or why it is not waited for any longer."""
        event: dict[str, Any] = {"run_id": self.run_id}
        runs = Runs(self.timing, say=log.info)
        try:
            async with AsyncClient(await KubeflowHook(self.conn_id).aserver()) as client:
                run = await client.run(runs.watch(self.run_id, self.deadline, self.lost))
            event |= {"outcome": "ended", "state": state_of(run)}
        except DeadlineError as error:
            event |= {"outcome": "late", "message": str(error)}
        except KubeflowError as error:
            event |= {"outcome": "unknown", "message": str(error)}
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Stop the run, if it was a person who took the task from us.

        Airflow cancels a trigger that it wants to end again about every second, also within this
        method: the work goes on without it.
        """
        work = asyncio.create_task(self._stop_if_taken())
        STOPPING.add(work)
        work.add_done_callback(STOPPING.discard)
        await asyncio.shield(work)

    async def _stop_if_taken(self) -> None:
        # Airflow also asks when another triggerer has taken the trigger over, for instance after a
        # pause in which this one was thought dead: then the task still waits.
        state = await self.task_state()
        if state == WAITING:
            log.info("the task still waits for run %s, somewhere else: it goes on", self.run_id)
            return
        log.info("the task is now %s: run %s is stopped", state, self.run_id)
        runs = Runs(replace(self.timing, patience_s=KILL_PATIENCE_S), say=log.info)
        try:
            async with AsyncClient(await KubeflowHook(self.conn_id).aserver()) as client:
                await client.run(runs.stop(self.run_id))
        except KubeflowError as error:
            log.error("run %s could not be stopped: %s", self.run_id, error)

    async def task_state(self) -> str | None:
        """The state of our task in Airflow's database, now."""
        return await asyncio.to_thread(task_state_of, self.task_instance)


def task_state_of(task_instance: Any) -> str | None:
    """The state of a task in Airflow's database, now.

    A task's process is told to stop, not why: the state tells a person from a machine.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    (state,) = states[task_instance.run_id].values()
    return None if state is None else str(getattr(state, "value", state))
