"""Run a pipeline on Kubeflow Pipelines as one Airflow task, and never twice.

    KubeflowPipelineOperator(task_id="train", pipeline="pixclip-train", deferrable=True)

Whatever becomes of worker, triggerer, network and server: a try goes on with the run that an
earlier one has started, and starts another only after that one has failed, or after the task is
cleared that has succeeded with it. `docs/cluster.md` shows the connection and what each event does.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from components.core.errors import InputError, SettingsError
from components.orchestration.airflow.kubeflow.hook import DEFAULT_CONNECTION, KubeflowHook
from components.orchestration.airflow.kubeflow.trigger import RunTrigger, task_state_of
from components.orchestration.kubeflow import tasks
from components.orchestration.kubeflow.client import Client, KubeflowError, Plan, RefusedError
from components.orchestration.kubeflow.runs import (
    ENDED,
    GOOD,
    Identity,
    Memory,
    Run,
    Runs,
    Timing,
    state_of,
)

log = logging.getLogger(__name__)
KILL_PATIENCE_S = 3.0  # Airflow kills a task's process after 5 s
MEMORY_KEY = "kubeflow_run"
LINK_KEY = "kubeflow_run_url"
# The task is still to be done; `restarting` is what a person makes of it by clearing it.
OURS = ("running", "deferred", "queued", "scheduled", "up_for_retry", "up_for_reschedule")


class TaskStore:
    """Airflow's task state store, which outlives tries, workers and clearing.

    `tell` is called with what is written.
    """

    def __init__(self, context: Any, tell: Callable[[Memory], None] = lambda _: None) -> None:
        self._store = context["task_state_store"]
        self._max_tries = context["ti"].max_tries
        self._tell = tell

    def read(self) -> Memory:
        """What an earlier try has written."""
        kept = dict(self._store.get(MEMORY_KEY) or {})
        kept.pop("max_tries", None)
        return Memory(**{**kept, "lost": tuple(kept.get("lost", ()))})

    def is_cleared(self) -> bool:
        """Whether a person has cleared the task since: that lets Airflow try it more often."""
        kept = self._store.get(MEMORY_KEY)
        return bool(kept and self._max_tries > kept["max_tries"])

    def write(self, memory: Memory) -> None:
        """Keep it for the next try."""
        self._tell(memory)
        kept = {**asdict(memory), "lost": list(memory.lost), "max_tries": self._max_tries}
        self._store.set(MEMORY_KEY, kept)


class RunLink(BaseOperatorLink):
    """Opens the page of the run."""

    name = "Kubeflow run"

    @property
    def xcom_key(self) -> str:
        """Where the address is from the moment in which the run is known."""
        return LINK_KEY

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address, as the task knows it at its end."""
        return str(getattr(operator, "run_url", ""))


class KubeflowPipelineOperator(BaseOperator):
    """Runs the newest version of a pipeline, and waits for its end.

    The XCom is the run: id, address, version, state of each task, outputs, metrics; an outlet
    asset's event carries the first three. An error names the failed task and ends with its log.

    Args:
        pipeline: its name on the server.
        parameters: those of the pipeline in which the run differs from the version's defaults.
        version: name of a version; empty: the newest one.
        experiment: to which the run belongs; made if it is not there.
        conn_id: connection of the type `kubeflow`.
        deferrable: wait in the triggerer. Otherwise the worker waits.
        timeout: of the run, after which it is stopped and the try fails.
        poll_s: between two looks at the run, in seconds.
        settle_s, patience_s: how long a lost request and a server that is away are waited for.
    """

    template_fields: Sequence[str] = ("pipeline", "parameters", "version", "experiment", "conn_id")
    template_fields_renderers = {"parameters": "json"}  # noqa: RUF012
    operator_extra_links = (RunLink(),)
    ui_color = "#e5dcff"

    def __init__(
        self,
        *,
        pipeline: str,
        parameters: Mapping[str, Any] | None = None,
        version: str = "",
        experiment: str = "airflow",
        conn_id: str = DEFAULT_CONNECTION,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        timeout: timedelta | None = None,
        poll_s: float = Timing.poll_s,
        settle_s: float = Timing.settle_s,
        patience_s: float = Timing.patience_s,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.parameters = pipeline, dict(parameters or {})
        self.version, self.experiment, self.conn_id = version, experiment, conn_id
        self.deferrable, self.timeout = deferrable, timeout
        self.poll_s, self.settle_s, self.patience_s = poll_s, settle_s, patience_s
        self.run_url = ""
        self._run_id = ""  # to be stopped by `on_kill`
        self._task_instance: Any = None

    def run_parameters(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters for the version that will run; a subclass may make them of its spec.

        Raises:
            SettingsError, InputError: they cannot work; the task fails without a retry.
        """
        return self.parameters

    def execute(self, context: Any) -> Any:
        """Start the run or find it again, and wait for its end."""
        hook = KubeflowHook(self.conn_id)
        self._task_instance = context["ti"]
        self._server = hook.server()
        identity = identity_of(context["ti"], hook.instance())
        store = TaskStore(context, lambda memory: self._note(identity, memory))
        try:
            with Client(self._server) as client:
                if store.is_cleared():  # the old try's process or trigger may not have stopped it
                    old = store.read()
                    run_id = old.run_id or identity.run_id(old.number)
                    client.run(self._runs().stop(run_id))
                run = client.run(
                    self._runs().ensure(identity, lambda: self._request(client), store)
                )
                self._show(run, context)
                run = self._wait(client, run, store.read())
                return self._ended(client, run, store, context)
        except (SettingsError, InputError) as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        except KubeflowError as error:
            raise _failure(error) from error
        finally:
            self._run_id = ""

    def resume(self, context: Any, event: Mapping[str, Any]) -> Any:
        """Go on with what the trigger has told."""
        if event["outcome"] != "ended":
            raise AirflowException(event["message"])
        self._server = KubeflowHook(self.conn_id).server()
        try:
            with Client(self._server) as client:
                run = client.run(self._runs().watch(event["run_id"]))
                self._show(run, context)
                return self._ended(client, run, TaskStore(context), context)
        except KubeflowError as error:
            raise _failure(error) from error

    def on_kill(self) -> None:
        """The process of this task is told to end: stop the run if a person wants that.

        A worker that is shut down gets the same signal. Then the task is still to be done, and its
        next try goes on with the run.
        """
        run_id, self._run_id = self._run_id, ""
        if not run_id:
            return
        state = task_state_of(self._task_instance)
        if state in OURS:
            raise AirflowException(f"this worker is stopped; run {run_id} goes on")
        log.info("the task is now %s: run %s is stopped", state, run_id)
        with Client(self._server) as client:
            client.run(self._runs(KILL_PATIENCE_S).stop(run_id))
        raise AirflowException(f"the task was set to {state}; run {run_id} is stopped")

    def _request(self, client: Client) -> Plan[dict[str, Any]]:
        from components.orchestration.kubeflow.server import requester

        return requester(
            client.server,
            self.pipeline,
            self.run_parameters,
            version=self.version,
            experiment=self.experiment,
        )()

    def _wait(self, client: Client, run: Run, memory: Memory) -> Run:
        run_id, deadline = run["run_id"], self._deadline(run)
        if self.deferrable and state_of(run) not in ENDED:
            trigger = RunTrigger(
                conn_id=self.conn_id,
                run_id=run_id,
                deadline=deadline,
                lost=memory.lost,
                **vars(self._timing()),
            )
            self.defer(trigger=trigger, method_name="resume")
        try:
            return client.run(self._runs().watch(run_id, deadline, memory.lost))
        except AirflowTaskTimeout:  # the task's own `execution_timeout`
            client.run(self._runs(KILL_PATIENCE_S).stop(run_id))
            raise

    def _deadline(self, run: Run) -> float | None:
        """When the run is to be stopped: the same in every try, as it is counted from its start."""
        if self.timeout is None:
            return None
        made = run.get("created_at")
        begun = datetime.fromisoformat(made).timestamp() if made else time.time()
        return begun + self.timeout.total_seconds()

    def _ended(self, client: Client, run: Run, store: TaskStore, context: Any) -> dict[str, Any]:
        if state_of(run) not in GOOD:
            raise AirflowException(client.run(tasks.failure(run)))
        told = client.run(tasks.results(run))
        # The last thing: a try that is killed before it leaves the run to the next one.
        store.write(replace(store.read(), is_used=True))
        reference = run.get("pipeline_version_reference")
        facts = {"run_id": run["run_id"], "url": self.run_url, "version": reference}
        for asset in self.outlets:
            context["outlet_events"][asset].extra = facts
        return {**facts, "tasks": tasks.states(run), **told}

    def _show(self, run: Run, context: Any) -> None:
        self.run_url = self._server.run_url(run["run_id"])
        log.info("run %s: %s", run["run_id"], self.run_url)
        context["ti"].xcom_push(key=LINK_KEY, value=self.run_url)

    def _note(self, identity: Identity, memory: Memory) -> None:
        """Keep what `on_kill` has to stop."""
        self._run_id = memory.run_id or identity.run_id(memory.number)

    def _timing(self) -> Timing:
        return Timing(self.poll_s, self.settle_s, self.patience_s)

    def _runs(self, patience_s: float = 0) -> Runs:
        timing = replace(self._timing(), patience_s=patience_s or self.patience_s)
        return Runs(timing, self._server.namespace, log.info)


def _failure(error: KubeflowError) -> AirflowException:
    """What Airflow is told: a request that is wrong stays wrong, anything else may be retried."""
    is_final = isinstance(error, RefusedError) and error.status == HTTPStatus.BAD_REQUEST
    return (AirflowFailException if is_final else AirflowException)(str(error))


def identity_of(task_instance: Any, instance: str) -> Identity:
    """What names the runs of a task: where it stands, the same in every try.

    `instance` is the name of this Airflow among those that use the server.
    """
    ti = task_instance
    place = [instance, ti.dag_id, ti.run_id, ti.task_id]
    mapped = [str(ti.map_index)] if ti.map_index is not None and ti.map_index >= 0 else []
    return Identity("/".join([*place, *mapped]), " ".join([ti.dag_id, ti.task_id, ti.run_id]))
