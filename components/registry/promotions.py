"""Moving the aliases of a model: one at a time, each move and each refusal in a log.

The log is the MLflow experiment `promotions`, one run for each decision, with who, when, from, to
and why; its parameters cannot be changed later. An entry is open (RUNNING) until its aliases are
where it says:

    promote   previous ← champion, then champion ← candidate
    rollback  champion ← its target, then previous is taken away, then the loser is tagged

A process that dies in between leaves its entry open, and the next one repairs it before anything
else: if the champion is the new version, the rest is done; if it is still the old one, `previous`
is put back and the entry is closed as abandoned. The champion itself changes in one write, so
there is always one.

One at a time: with a database file, a lock file beside it, which dies with its holder. With a
server, the open entry itself is the lock: whoever sees one waits until it is closed, and who sees
another's after opening its own gives way. Both may then give way, never both go on. An entry that
somebody sees open for `LEASE_S` (see `database.py`) is taken for dead.

A step that died after its move asks the log what became of it: `Entry.done_by`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BusyError
from components.core.files import write_whole
from components.core.tables import WORK_FOLDER
from components.registry.database import LEASE_S, Sightings, identity, lock_file
from components.registry.models import (
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK_TAG,
    Reference,
    Registry,
    Version,
)
from components.registry.store import TrackingError, database_path, experiment_id, mlflow_errors

EXPERIMENT = "promotions"
PROMOTE, ROLLBACK = "promote", "rollback"
MAX_NOTE_CHARS = 5000
NONE = "none"  # for a version that there is not


@dataclass(frozen=True)
class Champions:
    """Where the aliases point."""

    champion: Version | None
    previous: Version | None


class Entry:
    """An open entry of the log; its holder alone may move the aliases of the model."""

    def __init__(self, registry: Registry, model: str, run_id: str) -> None:
        self.registry, self.model, self.run_id = registry, model, run_id
        self.is_moving = False  # between the first and the last write of a move
        self.has_moved = False
        self.finished: Mapping[str, str] = {}  # facts of a dead process's move, done by this entry

    def champions(self) -> Champions:
        """Where the aliases point now."""
        champion = self.registry.find(Reference(self.model, CHAMPION))
        return Champions(champion, self.registry.find(Reference(self.model, PREVIOUS)))

    def move(
        self, action: str, to: Version, reason: str, notes: Mapping[str, str] | None = None
    ) -> None:
        """Make a version the champion; the notes are written before it, with the move's facts.

        Raises:
            BusyError: somebody else holds the log or moves the aliases.
            TrackingError: MLflow refused; the entry stays open and the next one repairs it.
        """
        self._require_open()
        before = self.champions()
        facts = {
            "action": action,
            "from": before.champion.number if before.champion else NONE,
            "to": to.number,
            "previous_before": before.previous.number if before.previous else NONE,
            "reason": reason,
        }
        self.is_moving = True
        self.note({**(notes or {}), **facts})
        _apply(self.registry, self.model, facts)
        self.is_moving = False
        after = self.champions().champion
        if after is None or after.number != to.number:
            raise BusyError(
                f"version {to.number} was made the champion of {self.model}, but now it is "
                f"{after.number if after else NONE}: somebody else moves the aliases; look first"
            )
        self.has_moved = True

    def _require_open(self) -> None:
        """Refuse to write after the lease ended and another process closed this entry."""
        with mlflow_errors("cannot read the promotion log"):
            status = self.registry.client.get_run(self.run_id).info.status
        if status != "RUNNING":
            raise BusyError(
                f"the decision on {self.model} took more than {LEASE_S} s and another process "
                "has taken over; try again"
            )

    def note(self, facts: Mapping[str, str]) -> None:
        """Write facts that cannot be changed later, all at once."""
        from mlflow.entities import Param

        params = [Param(name, value[:MAX_NOTE_CHARS] or NONE) for name, value in facts.items()]
        with mlflow_errors("cannot write the promotion log"):
            self.registry.client.log_batch(self.run_id, params=params)

    def done_by(self, run_id: str) -> Mapping[str, str]:
        """The facts of an earlier entry's move, if it was made and nobody has moved on since."""
        run = _find_run(self.registry, run_id) if run_id else None
        if run is None or run.info.status != "FINISHED":
            return {}
        facts: Mapping[str, str] = run.data.params
        now = self.champions().champion
        is_same = facts.get("model") == self.model and now and facts.get("to") == now.number
        return facts if is_same and "from" in facts else {}


def _find_run(registry: Registry, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    with mlflow_errors("cannot read the promotion log"):
        try:
            return registry.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None  # of another registry
            raise


@contextmanager
def promotion_entry(registry: Registry, model: str) -> Iterator[Entry]:
    """An entry that is closed as FINISHED, or as FAILED if it ends in an error before it moved.

    Raises:
        BusyError: another promotion or rollback of this model is under way.
        TrackingError: MLflow refused.
    """
    client = registry.client
    with _lock_file(registry, model) as is_locked:
        with mlflow_errors("cannot open the promotion log"):
            log = experiment_id(client, EXPERIMENT)
        sightings = Sightings()
        if not is_locked:
            sightings.wait_for(lambda: _open_entries(registry, model, log))
        with mlflow_errors("cannot open the promotion log"):
            run = client.create_run(log, run_name=model, tags=identity())
            client.log_param(run.info.run_id, "model", model)
        entry = Entry(registry, model, run.info.run_id)
        try:
            _repair_dead(entry, log, None if is_locked else sightings)
            yield entry
        except BaseException:
            if not entry.is_moving:  # a move that broke off stays open: the next one repairs it
                with suppress(TrackingError):  # so it does this one; the first error tells more
                    _close(client, entry.run_id, "FINISHED" if entry.has_moved else "FAILED")
            raise
        _close(client, entry.run_id, "FINISHED")


def _close(client: Any, run_id: str, status: str) -> None:
    with mlflow_errors(f"cannot close the entry {run_id} of the promotion log"):
        client.set_terminated(run_id, status)


def was_champion(registry: Registry, version: Version) -> bool:
    """Whether the log knows this version as a champion."""
    return bool(move_to(registry, version))


def move_to(registry: Registry, version: Version) -> Mapping[str, str]:
    """The facts of the newest move that made this version the champion; empty if there is none."""
    log = experiment_id(registry.client, EXPERIMENT)
    query = (
        f"params.model = '{version.model}' and params.to = '{version.number}' "
        "and attributes.status = 'FINISHED'"
    )
    with mlflow_errors("cannot read the promotion log"):
        found = registry.client.search_runs([log], query, max_results=1)
    return found[0].data.params if found else {}


def _apply(registry: Registry, model: str, facts: Mapping[str, str]) -> None:
    """Write the aliases of a move in their order; doing it twice does no harm."""
    to = Reference(model, facts["to"])
    if facts["action"] == PROMOTE:
        if facts["from"] != NONE:
            registry.set_alias(Reference(model, facts["from"]), PREVIOUS)
        registry.set_alias(to, CHAMPION)
    else:
        registry.set_alias(to, CHAMPION)
        registry.delete_alias(model, PREVIOUS)
        registry.set_tag(Reference(model, facts["from"]), ROLLED_BACK_TAG, facts["reason"])


def _repair_dead(entry: Entry, log: str, sightings: Sightings | None) -> None:
    """Close the open entries of processes that died; give way to one that may live.

    Without sightings, all others are dead: this process holds the lock file.
    """
    opened = _open_entries(entry.registry, entry.model, log)
    others = [run for run in opened if run.info.run_id != entry.run_id]
    for other in others:
        if sightings and not sightings.is_dead(other):
            raise BusyError(
                f"another promotion of {entry.model} is under way, seen since "
                f"{sightings.age_s(other):.0f} s (entry {other.info.run_id}); try again. If its "
                f"process died, who waits for it repairs it after {LEASE_S} s"
            )
    for other in sorted(others, key=lambda run: run.info.start_time):
        is_done = _repair(entry, other.data.params)
        if is_done:
            entry.finished = other.data.params
        _close(entry.registry.client, other.info.run_id, "FINISHED" if is_done else "FAILED")


def _open_entries(registry: Registry, model: str, log: str) -> list[Any]:
    """The runs of the log that nobody has closed."""
    query = f"attributes.status = 'RUNNING' and attributes.run_name = '{model}'"
    with mlflow_errors("cannot read the promotion log"):
        return list(registry.client.search_runs([log], query))


def _repair(entry: Entry, facts: Mapping[str, str]) -> bool:
    """Bring a dead process's move to an end; whether that end is the new champion."""
    if not {"from", "to", "previous_before"} <= facts.keys():
        return False  # it died before it wrote an alias
    now = entry.champions().champion
    number = now.number if now else NONE
    if number == facts["to"]:
        _apply(entry.registry, entry.model, facts)
        return True
    if number == facts["from"]:  # otherwise somebody has moved on by hand
        _put_back(entry, facts["previous_before"])
    return False


def _put_back(entry: Entry, previous: str) -> None:
    if previous == NONE:
        entry.registry.delete_alias(entry.model, PREVIOUS)
    else:
        entry.registry.set_alias(Reference(entry.model, previous), PREVIOUS)


@contextmanager
def _lock_file(registry: Registry, model: str) -> Iterator[bool]:
    """Hold the lock beside a database file; False where there is none (a server)."""
    database = database_path(registry.uri)
    if database is None:
        yield False
        return
    with lock_file(_lock_path(database, model), f"another promotion of {model}"):
        yield True


def _lock_path(database: Path, model: str) -> Path:
    return database.with_name(f".{database.name}.{model}.promotion")


NAME = "mlflow_run"
RUN_ID = re.compile(r"[0-9a-f]{32}")


# Which run in MLflow an attempt of a step opened, kept in its draft: the next attempt asks for it.
#
# The draft goes when the step's settings or inputs change, and its work folder on publishing.


def earlier_run(draft: Path) -> str:
    """The run of the attempt before this one; empty if it got to none."""
    try:
        text = (draft / WORK_FOLDER / NAME).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return text if RUN_ID.fullmatch(text) else ""


def remember_run(draft: Path, run_id: str) -> None:
    """Keep the run of this attempt."""
    (draft / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(draft / WORK_FOLDER / NAME, run_id)
