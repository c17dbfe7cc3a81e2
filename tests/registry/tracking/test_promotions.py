"""What becomes of the aliases when a process dies in the middle, or another one is there."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.core.errors import BusyError, InputError
from components.registry import database as turns
from components.registry import promotions
from components.registry.models import ROLLED_BACK_TAG, Reference, Registry
from components.registry.promotions import PROMOTE, ROLLBACK, promotion_entry, was_champion
from components.registry.store import TrackingError

DEFAULT_WAIT_S = turns.WAIT_S


def version(number: int) -> Reference:
    return Reference("pixclip", str(number))


@pytest.fixture
def versions(registry: Registry) -> Registry:
    """A registry with three empty versions, 1 and 2 having been champions; 2 is it."""
    registry.client.create_registered_model("pixclip")
    for _ in range(3):
        registry.client.create_model_version("pixclip", source="file:///nowhere")
    for number in (1, 2):
        move(registry, PROMOTE, number)
    return registry


def move(registry: Registry, action: str, number: int) -> None:
    with promotion_entry(registry, "pixclip") as entry:
        entry.move(action, registry.get(version(number)), "a test")


def aliases(registry: Registry) -> tuple[str, str]:
    found = [registry.find(Reference("pixclip", alias)) for alias in ("champion", "previous")]
    champion, previous = (one.number if one else "" for one in found)
    return champion, previous


def statuses(registry: Registry) -> list[str]:
    """Of the log's entries, newest first."""
    log = registry.client.get_experiment_by_name("promotions").experiment_id
    return [run.info.status for run in registry.client.search_runs([log])]


class Killed(BaseException):
    """Nothing runs after it, as after a kill."""


def dying_after(monkeypatch: pytest.MonkeyPatch, num_writes: int) -> None:
    """Let the process die after so many writes of aliases and tags."""
    left = [num_writes]

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def write_or_die(*arguments: Any) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            write(*arguments)

        return write_or_die

    for name in ("set_alias", "delete_alias", "set_tag"):
        monkeypatch.setattr(Registry, name, counted(getattr(Registry, name)))


def break_off(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, action: str, number: int, num_writes: int
) -> None:
    """A move whose process dies after so many writes."""
    with monkeypatch.context() as patch:
        dying_after(patch, num_writes)
        with pytest.raises(Killed):
            move(registry, action, number)


@pytest.mark.parametrize(
    ("action", "number", "num_writes", "left", "repaired"),
    [
        (PROMOTE, 3, 0, ("2", "1"), ("2", "1")),
        (PROMOTE, 3, 1, ("2", "2"), ("2", "1")),  # `previous` is put back
        (ROLLBACK, 1, 0, ("2", "1"), ("2", "1")),
        (ROLLBACK, 1, 1, ("1", "1"), ("1", "")),  # the rest is done
        (ROLLBACK, 1, 2, ("1", ""), ("1", "")),
    ],
)
def test_a_move_that_broke_off_is_repaired_by_the_next_one(
    versions: Registry,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    number: int,
    num_writes: int,
    left: tuple[str, str],
    repaired: tuple[str, str],
) -> None:
    break_off(versions, monkeypatch, action, number, num_writes)
    assert aliases(versions) == left
    assert statuses(versions)[0] == "RUNNING"
    with promotion_entry(versions, "pixclip"):
        assert aliases(versions) == repaired
    is_done = repaired != ("2", "1")
    assert statuses(versions)[:2] == ["FINISHED", "FINISHED" if is_done else "FAILED"]
    assert (ROLLED_BACK_TAG in versions.get(version(2)).tags) == is_done


def test_a_move_that_was_written_but_not_closed_counts(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    entry = promotion_entry(versions, "pixclip")
    opened = entry.__enter__()
    opened.move(PROMOTE, versions.get(version(3)), "a test")
    with monkeypatch.context() as patch:
        patch.setattr(versions.client, "set_terminated", die)
        with pytest.raises(Killed):
            entry.__exit__(None, None, None)
    move(versions, ROLLBACK, 2)
    assert was_champion(versions, versions.get(version(3)))
    assert "RUNNING" not in statuses(versions)


def test_an_error_after_the_move_does_not_unmake_a_champion(versions: Registry) -> None:
    entry = promotion_entry(versions, "pixclip")
    opened = entry.__enter__()
    opened.move(PROMOTE, versions.get(version(3)), "a test")
    error = TrackingError("no connection")
    assert not entry.__exit__(TrackingError, error, None)
    assert statuses(versions)[0] == "FINISHED"
    assert was_champion(versions, versions.get(version(3)))


def test_an_error_of_mlflow_in_the_middle_is_repaired_too(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TrackingError("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_alias", refuse)
        with pytest.raises(TrackingError):
            move(versions, PROMOTE, 3)
    move(versions, PROMOTE, 3)
    assert aliases(versions) == ("3", "2")


KILLED = """
import os, signal, sys
from components.registry.models import Reference
from components.registry.promotions import PROMOTE, promotion_entry
from components.registry.models import Registry
write = Registry.set_alias
def write_and_die(self, reference, alias):
    write(self, reference, alias)
    os.kill(os.getpid(), signal.SIGKILL)
Registry.set_alias = write_and_die
registry = Registry(sys.argv[1])
with promotion_entry(registry, "pixclip") as entry:
    entry.move(PROMOTE, registry.get(Reference("pixclip", "3")), "a test")
"""


def test_a_killed_process_leaves_no_lock(versions: Registry) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, versions.uri], check=False)
    assert done.returncode == -9
    assert aliases(versions) == ("2", "2")
    move(versions, PROMOTE, 3)
    assert aliases(versions) == ("3", "2")


@pytest.fixture
def on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock file: the open entry is the lock; nobody waits for it."""
    monkeypatch.setattr(promotions, "database_path", lambda uri: None)
    monkeypatch.setattr(turns, "WAIT_S", 0)
    monkeypatch.setattr(turns, "SERVER_POLL_S", 0.05)


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_the_second_gives_way_to_an_open_entry(versions: Registry) -> None:
    with promotion_entry(versions, "pixclip") as first:
        with pytest.raises(BusyError, match="another promotion of pixclip is under way"):
            move(versions, PROMOTE, 3)
        first.move(PROMOTE, versions.get(version(3)), "a test")
    assert aliases(versions) == ("3", "2")
    assert statuses(versions)[:2] == ["FAILED", "FINISHED"]


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_the_second_waits_until_the_first_is_done(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 60)
    first = promotion_entry(versions, "pixclip")
    opened = first.__enter__()
    polls = iter(range(2))

    def end_the_first(_: float) -> None:
        if next(polls) == 1:
            opened.move(PROMOTE, versions.get(version(3)), "a test")
            first.__exit__(None, None, None)

    monkeypatch.setattr(turns.time, "sleep", end_the_first)
    move(versions, ROLLBACK, 2)
    assert aliases(versions) == ("2", "")
    assert statuses(versions)[:2] == ["FINISHED", "FINISHED"]


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_who_waits_for_a_dead_process_repairs_what_it_left(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turns.LEASE_S < DEFAULT_WAIT_S
    break_off(versions, monkeypatch, PROMOTE, 3, num_writes=1)
    monkeypatch.setattr(turns, "LEASE_S", 1)
    monkeypatch.setattr(turns, "WAIT_S", 60)
    move(versions, PROMOTE, 3)
    assert aliases(versions) == ("3", "2")
    assert statuses(versions)[:2] == ["FINISHED", "FAILED"]


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_a_dead_entry_is_repaired_when_its_lease_is_over(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(versions, monkeypatch, PROMOTE, 3, num_writes=1)
    with pytest.raises(BusyError):
        move(versions, PROMOTE, 3)
    monkeypatch.setattr(turns, "LEASE_S", 0)
    move(versions, PROMOTE, 3)
    assert aliases(versions) == ("3", "2")


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_one_who_overslept_its_lease_writes_nothing(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = promotion_entry(versions, "pixclip")
    asleep = sleeper.__enter__()
    monkeypatch.setattr(turns, "LEASE_S", 0)
    move(versions, PROMOTE, 3)
    with pytest.raises(BusyError, match="another process has taken over"):
        asleep.move(PROMOTE, versions.get(version(1)), "a test")
    assert aliases(versions) == ("3", "2")


@pytest.mark.usefixtures("on_a_server")
@pytest.mark.parametrize("days", [-1, 1, 400])
def test_on_a_server_the_clock_of_another_machine_decides_nothing(
    versions: Registry, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    there = time.time() + days * 24 * 3600
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.tracking._tracking_service.client.get_current_time_millis",
                      lambda: int(there * 1000))  # fmt: skip
        break_off(versions, monkeypatch, PROMOTE, 3, num_writes=1)
    started = newest_open(versions).info.start_time / 1000
    assert abs(started - there) < 60
    with pytest.raises(BusyError, match="another promotion of pixclip is under way"):
        move(versions, PROMOTE, 3)  # a clock that is behind makes nobody dead
    monkeypatch.setattr(turns, "LEASE_S", 1)
    monkeypatch.setattr(turns, "WAIT_S", 60)
    move(versions, PROMOTE, 3)  # nor does one that is ahead keep anybody waiting
    assert aliases(versions) == ("3", "2")
    assert "RUNNING" not in statuses(versions)


def newest_open(registry: Registry) -> Any:
    log = registry.client.get_experiment_by_name("promotions").experiment_id
    (run,) = registry.client.search_runs([log], "attributes.status = 'RUNNING'")
    return run


@pytest.mark.usefixtures("on_a_server")
def test_on_a_server_a_process_that_died_on_this_machine_keeps_nobody_waiting(
    versions: Registry,
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, versions.uri], check=False)
    assert done.returncode == -9
    move(versions, PROMOTE, 3)
    assert aliases(versions) == ("3", "2")


@pytest.mark.usefixtures("on_a_server")
def test_an_entry_whose_process_died_before_it_named_its_model_is_closed(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_param", die)
        with pytest.raises(Killed):
            move(versions, PROMOTE, 3)
    assert "RUNNING" in statuses(versions)
    monkeypatch.setattr(turns, "LEASE_S", 0)
    move(versions, PROMOTE, 3)
    assert "RUNNING" not in statuses(versions)


def test_an_alias_that_somebody_moves_by_hand_is_noticed(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Registry.set_alias

    def write_and_be_overruled(self: Registry, reference: Reference, alias: str) -> None:
        write(self, reference, alias)
        if alias == "champion":
            write(self, version(1), alias)

    monkeypatch.setattr(Registry, "set_alias", write_and_be_overruled)
    with pytest.raises(BusyError, match="somebody else moves the aliases"):
        move(versions, PROMOTE, 3)
    assert statuses(versions)[0] == "FAILED"


def test_what_the_log_says_cannot_be_changed(versions: Registry) -> None:
    with promotion_entry(versions, "pixclip") as entry:
        entry.note({"reason": "one"})
        with pytest.raises(TrackingError):
            entry.note({"reason": "another"})


def test_an_entry_that_cannot_be_closed_does_not_hide_what_happened(
    versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise MlflowException("the server is away")

    monkeypatch.setattr(MlflowClient, "set_terminated", away)
    with pytest.raises(InputError, match="the reason"), promotion_entry(versions, "pixclip"):
        raise InputError("the reason")
    with (
        pytest.raises(TrackingError, match="cannot close the entry"),
        promotion_entry(versions, "pixclip"),
    ):
        pass
