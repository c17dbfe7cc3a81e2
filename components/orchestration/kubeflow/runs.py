"""One run, always: start a run, find it again, wait for it, stop it, and say why it failed.

A server of Kubeflow Pipelines makes the Workflow before the row that its API shows, and a request
whose answer is lost may have made either. So the client chooses the run's id, the same in every
try, remembers that it asks before it asks, and looks before it asks again.
`docs/decisions/0016-one-run-always.md` tells why.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from components.core.errors import InputError
from components.orchestration.kubeflow.client import (
    AwayError,
    KubeflowError,
    LostError,
    Pause,
    Plan,
    RefusedError,
    backoff,
    get,
    listed,
    patiently,
    post,
)

GOOD, BAD = ("SUCCEEDED", "SKIPPED"), ("FAILED", "CANCELED")
ENDED = (*GOOD, *BAD)  # CANCELING is not among them: its pods still run
CANCELING = "CANCELING"
NAMESPACE = uuid.UUID("6f1c3a52-6a0e-5b0c-9d57-2f1d4c1f9a10")  # of our ids
MAX_LOST = 3  # requests for a run whose answer never came and that left no run
MAX_NAME_CHARS = 120  # of a run's display name
Run = Mapping[str, Any]


class DeadlineError(KubeflowError):
    """The run did not end in time, and was told to stop."""


@dataclass(frozen=True)
class Identity:
    """What a run is the run of: `key` decides its ids, `label` begins its name."""

    key: str
    label: str

    def run_id(self, number: int) -> str:
        """The id that the client sends for the run of that number."""
        return str(uuid.uuid5(NAMESPACE, f"{self.key}/{number}"))

    def name(self, number: int) -> str:
        """The run's display name, which no other run has: it finds a run by itself."""
        end = f" #{number} {self.run_id(number)[:13]}"
        return self.label[: MAX_NAME_CHARS - len(end)] + end


@dataclass(frozen=True)
class Memory:
    """What is remembered of a task's run, from one try to the next.

    Args:
        number: of the run that was asked for last; 0: none was.
        run_id: its id, as the server answered it; empty: no answer came yet.
        is_used: the task has succeeded with this run: when it is cleared, it wants another one.
        lost: ids that were asked for, without an answer, and did not show in time.
    """

    number: int = 0
    run_id: str = ""
    is_used: bool = False
    lost: tuple[str, ...] = ()


class Store(Protocol):
    """Keeps the memory; Airflow's task state store is one."""

    def read(self) -> Memory:
        """What was written last; the empty memory if nothing was."""

    def write(self, memory: Memory) -> None:
        """Keep it: once this returns, a process that is killed leaves it for the next try."""


class ProcessStore:
    """Keeps the memory as long as this process, which is enough for a command."""

    def __init__(self) -> None:
        self._memory = Memory()

    def read(self) -> Memory:
        """What was written last."""
        return self._memory

    def write(self, memory: Memory) -> None:
        """Keep it."""
        self._memory = memory


@dataclass(frozen=True)
class Timing:
    """How long a client waits, in seconds.

    Args:
        poll_s: between two looks at a run.
        settle_s: after a lost answer, until a run that does not show was not made. It must be
            longer than the server works on a request. Workflows without a row are removed by the
            server itself, after 120 s.
        patience_s: for a server that is away.
    """

    poll_s: float = 30.0
    settle_s: float = 60.0
    patience_s: float = 1800.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise InputError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True)
class Runs:
    """Plans about runs, for `Client.run` and `AsyncClient.run`.

    Args:
        namespace: of the user, where several share the server.
        say: is told what happens, a line each.
    """

    timing: Timing = field(default_factory=Timing)
    namespace: str = ""
    say: Callable[[str], None] = lambda _: None

    def ensure(
        self, identity: Identity, request: Callable[[], Plan[Mapping[str, Any]]], store: Store
    ) -> Plan[Run]:
        """The one run of a task: it lives, or has succeeded unused, or is started here.

        Args:
            request: makes the body of the request, without id and name, if one is needed.

        Raises:
            RefusedError: the server will not start it.
            AwayError: the server was away for longer than the patience.
        """
        before = store.read()
        memory, run = yield from self._look(identity, before)
        if run is None:
            body = yield from request()
            return (yield from self._start(identity, body, memory, before, store))
        self.say(f"run {run['run_id']} is there already: {state_of(run)}")
        store.write(memory)
        return run

    def _look(self, identity: Identity, memory: Memory) -> Plan[tuple[Memory, Run | None]]:
        """The run that is to be taken, or the number of the one that is to be started."""
        number = max(memory.number, 1)
        lost = memory.lost
        while True:
            is_remembered = number == memory.number
            run_id = (is_remembered and memory.run_id) or identity.run_id(number)
            run = yield from self._find(identity, number, run_id)
            if run is None and is_remembered:
                if not memory.run_id:  # asked for by a process that was killed
                    run = yield from self._settle(identity, number)
                if run is None:
                    lost, number = (*lost, run_id), number + 1
                    continue
            if run is None:
                return Memory(number, lost=lost), None
            run = yield from self._uncanceled(run)
            state = state_of(run)
            is_to_take = is_remembered and not memory.is_used if state in GOOD else state not in BAD
            if is_to_take:
                return Memory(number, run["run_id"], lost=lost), run
            self.say(f"run {run['run_id']} has ended as {state}; another one is wanted")
            number += 1

    def _start(
        self,
        identity: Identity,
        body: Mapping[str, Any],
        memory: Memory,
        before: Memory,
        store: Store,
    ) -> Plan[Run]:
        run: Run | None
        for _ in range(MAX_LOST):
            number, run_id = memory.number, identity.run_id(memory.number)
            store.write(memory)
            sent = {**body, "run_id": run_id, "display_name": identity.name(number)}
            try:
                run = yield from patiently(
                    post("/runs", sent), self.timing.patience_s, self.say, is_repeatable=False
                )
            except RefusedError as error:
                if error.status != HTTPStatus.CONFLICT:
                    store.write(before)
                    raise
                run = yield from self._settle(identity, number)
            except LostError as error:
                self.say(f"{error}; looking whether run {run_id} was made")
                run = yield from self._settle(identity, number)
            if run is not None:
                if run["run_id"] != run_id:
                    self.say(f"the server chose another id: {run['run_id']}")
                store.write(Memory(number, run["run_id"], lost=memory.lost))
                return run
            # Under the same id the two could not be told apart, and the server would never remove
            # a Workflow of the first request: it would seem to belong to the second one's row.
            memory = Memory(number + 1, lost=(*memory.lost, run_id))
        raise KubeflowError(
            f"the server answered none of {MAX_LOST} requests for a run, and shows no run of them: "
            "look at the API server's log"
        )

    def _find(self, identity: Identity, number: int, run_id: str) -> Plan[Run | None]:
        """A run by its id, or by its name at a server that chooses ids of its own."""
        try:
            run: Run = yield from self._get(run_id)
            return run
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        query = listed("display_name", identity.name(number), self.namespace)
        found = yield from patiently(get("/runs", query), self.timing.patience_s, self.say)
        runs = found.get("runs") or []
        return runs[0] if runs else None

    def _settle(self, identity: Identity, number: int) -> Plan[Run | None]:
        """A run that was asked for, once it shows; None if it has not shown in time."""
        begun = time.monotonic()
        pauses = backoff(self.timing.settle_s / 20)
        while True:
            run = yield from self._find(identity, number, identity.run_id(number))
            if run is not None or time.monotonic() - begun >= self.timing.settle_s:
                return run
            yield Pause(next(pauses))

    def _uncanceled(self, run: Run) -> Plan[Run]:
        """The run, once it is no longer being cancelled: a second one must not run beside it."""
        end = time.monotonic() + self.timing.patience_s
        while state_of(run) == CANCELING:
            if time.monotonic() > end:
                raise KubeflowError(
                    f"run {run['run_id']} is being cancelled for {self.timing.patience_s:.0f} s "
                    "already, and no other run is started beside it: look at its Workflow"
                )
            self.say(f"waiting for the end of run {run['run_id']}, which is being cancelled")
            yield Pause(self.timing.poll_s)
            run = yield from self._get(run["run_id"])
        return run

    def watch(
        self, run_id: str, deadline: float | None = None, lost: tuple[str, ...] = ()
    ) -> Plan[Run]:
        """Wait for the end of a run, saying each change of its state.

        Args:
            deadline: seconds since 1970, when a run that has not ended is stopped.
            lost: ids of which no run may live beside this one.

        Raises:
            DeadlineError: the run did not end in time.
            AwayError: the server was away for longer than the patience; the run goes on.
        """
        told = ""
        while True:
            run = yield from self._get(run_id)
            state = state_of(run)
            if state != told:
                self.say(f"run {run_id}: {state}")
                told = state
            for other in lost:
                yield from self._stop_late(other)
            if state in ENDED:
                return run
            left_s = self.timing.poll_s if deadline is None else deadline - time.time()
            if left_s <= 0:
                yield from self.stop(run_id)
                raise DeadlineError(f"run {run_id} has not ended in time, and was stopped")
            yield Pause(min(next(backoff(self.timing.poll_s)), left_s))

    def _stop_late(self, run_id: str) -> Plan[None]:
        try:
            run = yield get(f"/runs/{run_id}")
        except KubeflowError:
            return
        if state_of(run) not in (*ENDED, CANCELING):
            self.say(f"run {run_id} was given up and has come after all; it is stopped")
            yield from self.stop(run_id)

    def stop(self, run_id: str) -> Plan[None]:
        """Terminate a run; one that has ended, or is gone, is a success.

        Raises:
            RefusedError: the server will not do it.
            AwayError: the server was away for longer than the patience.
        """
        is_sure, pauses = True, backoff()
        end = time.monotonic() + self.timing.patience_s
        while True:
            try:
                yield post(f"/runs/{run_id}:terminate")
                is_sure = True
            except RefusedError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return
                if error.status != HTTPStatus.BAD_REQUEST:  # which is: not running
                    raise
            except AwayError:
                # The server notes the end before it tells the Workflow: its word does not count.
                is_sure = False
                if time.monotonic() > end:
                    raise
                yield Pause(next(pauses))
                continue
            state = state_of((yield from self._get(run_id)))
            if state in ENDED or (state == CANCELING and is_sure):
                return
            if time.monotonic() > end:
                raise KubeflowError(f"run {run_id} does not stop: it is {state}")
            yield Pause(next(pauses))

    def _get(self, run_id: str) -> Plan[Run]:
        run: Run = yield from patiently(get(f"/runs/{run_id}"), self.timing.patience_s, self.say)
        return run


def state_of(run: Run) -> str:
    """The state of a run; one of `ENDED` or any other."""
    return str(run.get("state", "RUNTIME_STATE_UNSPECIFIED"))
