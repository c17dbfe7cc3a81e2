"""Who waits for whom: who somebody is, and whether a process of this machine still lives."""

import getpass
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.core.errors import BusyError
from components.registry import database as turns
from components.registry.database import (
    HOLDER_TAG,
    Sightings,
    identity,
    is_gone,
    lock_file,
    user_name,
)


def entry(holder: str = "") -> Any:
    tags = {HOLDER_TAG: holder} if holder else {}
    return SimpleNamespace(info=SimpleNamespace(run_id="a"), data=SimpleNamespace(tags=tags))


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username"), ImportError])
def test_a_user_without_a_name_has_a_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unknown() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert user_name() == f"uid {os.getuid()}"


def test_this_process_lives_and_a_child_that_ended_does_not() -> None:
    holder = identity()[HOLDER_TAG]
    assert not is_gone(holder)
    code = "from components.registry.database import *; print(identity()[HOLDER_TAG])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_gone(done.stdout.strip())


def test_a_later_process_of_the_same_number_is_not_taken_for_the_dead_one() -> None:
    boot, namespace, pid, _ = identity()[HOLDER_TAG].split()
    assert is_gone(f"{boot} {namespace} {pid} 12345")


@pytest.mark.parametrize(
    "holder", ["", "x", "other-boot pid:[1] 1 1", "a b c d e", f"{'a' * 5000}", "1 2 -3 4"]
)
def test_of_another_machine_s_process_nothing_is_known(holder: str) -> None:
    assert not is_gone(holder)


def test_where_there_is_no_proc_only_the_lease_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BOOT_ID", Path("/nowhere"))
    holder = identity()[HOLDER_TAG]
    assert not is_gone(holder)
    sightings = Sightings()
    assert not sightings.is_dead(entry(holder))
    monkeypatch.setattr(turns, "LEASE_S", 0)
    assert sightings.is_dead(entry(holder))


def test_age_counts_from_the_first_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: clock[0])
    sightings = Sightings()
    assert not sightings.is_dead(entry())
    clock[0] += turns.LEASE_S - 1
    assert not sightings.is_dead(entry())
    clock[0] += 1
    assert sightings.is_dead(entry())


def test_a_lock_that_somebody_keeps_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0)
    monkeypatch.setattr(turns, "LOCK_POLL_S", 0.01)
    with (
        lock_file(tmp_path / "lock", "the first"),
        pytest.raises(BusyError, match="the second has been under way"),
        lock_file(tmp_path / "lock", "the second"),
    ):
        pass
