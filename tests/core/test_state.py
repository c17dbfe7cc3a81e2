"""The folder that outlives tasks: killed work is found again, equal work is not repeated."""

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from components.core import drafts
from components.core.errors import InputError
from components.core.receipts import read_receipt
from components.core.state import DAY_S, VARIABLE, forget_old, run_kept, state_folder
from components.core.step import In, Metrics, Out, StepSettings, step
from components.core.tables import WORK_FOLDER

CALLS: Counter[str] = Counter()


class Settings(StepSettings):
    """One setting."""

    is_killed: bool = False
    text: str = "hello"


def write(checkpoint: Path, curves: Path, settings: Settings) -> Metrics:
    CALLS["resumed"] += (checkpoint / WORK_FOLDER).exists()
    CALLS["run"] += 1
    (checkpoint / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    if settings.is_killed and not CALLS["resumed"]:
        raise KeyboardInterrupt
    (checkpoint / "model").write_text(settings.text)
    curves.write_text("step,loss\n")
    return {"num": 1}


@step(image="train")
def train(parent: In, checkpoint: Out, curves: Out, settings: Settings) -> Metrics:
    """Write two outputs."""
    return write(checkpoint, curves, settings)


@step(image="train", is_pure=False)
def promote(parent: In, checkpoint: Out, curves: Out, settings: Settings) -> Metrics:
    """Look at the world."""
    return write(checkpoint, curves, settings)


@pytest.fixture(autouse=True)
def fresh_counts():
    CALLS.clear()


@pytest.fixture
def parent(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "parent"
    folder.mkdir()
    (folder / "weights").write_text("w")
    return {"parent": folder}


def places(folder: Path) -> dict[str, Path]:
    """Where an orchestrator wants the outputs: another place in every attempt."""
    return {"checkpoint": folder / "checkpoint", "curves": folder / "curves.csv"}


def test_another_attempt_finds_the_work_of_the_killed_one(parent, tmp_path):
    state, settings = tmp_path / "state", {"is_killed": True}
    with pytest.raises(KeyboardInterrupt):
        run_kept(train, parent, places(tmp_path / "first"), settings, state)
    run_kept(train, parent, places(tmp_path / "second"), settings, state)
    assert CALLS == {"run": 2, "resumed": 1}
    assert (tmp_path / "second/checkpoint/model").read_text() == "hello"
    assert (tmp_path / "second/curves.csv").exists()
    assert not (tmp_path / "second/checkpoint" / WORK_FOLDER).exists()


def test_equal_work_is_done_once_and_other_work_anew(parent, tmp_path):
    state = tmp_path / "state"
    for number, text in enumerate(["hello", "hello", "bye"]):
        out = places(tmp_path / str(number))
        receipt = run_kept(train, parent, out, {"text": text}, state)
        assert read_receipt(out["checkpoint"]) == receipt
    assert CALLS["run"] == 2
    assert (tmp_path / "2/checkpoint/model").read_text() == "bye"


def test_a_step_that_looks_at_the_world_keeps_nothing_and_is_always_run(parent, tmp_path):
    for _ in range(2):
        run_kept(promote, parent, places(tmp_path / "out"), {}, tmp_path / "state")
    assert CALLS["run"] == 2
    assert not (tmp_path / "state").exists()


def test_what_no_run_has_used_for_days_is_forgotten(parent, tmp_path):
    state = tmp_path / "state"
    for text in ("old", "new"):
        run_kept(train, parent, places(tmp_path / text), {"text": text}, state)
    (old,) = [
        path for path in state.glob("train/*") if "old" in (path / "checkpoint/model").read_text()
    ]
    past = time.time() - 3 * DAY_S
    for path in (old, *old.rglob("*")):
        os.utime(path, (past, past))
    assert forget_old(state, keep_days=2) == [old]
    assert len(list(state.glob("train/*"))) == 1
    assert (tmp_path / "old/checkpoint/model").read_text() == "old", "what was handed over stays"


def test_a_training_of_weeks_that_still_writes_is_not_forgotten(parent, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run_kept(train, parent, places(tmp_path / "out"), {"is_killed": True}, state)
    (place,) = state.glob("train/*")
    past = time.time() - 3 * DAY_S
    for path in (place, *place.iterdir()):
        os.utime(path, (past, past))
    assert forget_old(state, keep_days=2) == []


def test_what_a_pointer_leads_to_is_never_forgotten_unless_a_cache_has_a_life(
    parent, tmp_path, monkeypatch
):
    state = tmp_path / "state"
    run_kept(train, parent, places(tmp_path / "out"), {}, state, points=True)
    (place,) = state.glob("train/*")
    past = time.time() - 30 * DAY_S
    for path in (place, *place.rglob("*")):
        os.utime(path, (past, past))
    assert forget_old(state, keep_days=2) == []
    assert forget_old(state, keep_days=2, keep_pointed_days=31) == []
    assert forget_old(state, keep_days=2, keep_pointed_days=29) == [place]


def test_what_is_no_step_s_in_the_state_folder_is_left_alone(tmp_path):
    model = tmp_path / "models" / "smollm2"
    model.mkdir(parents=True)
    os.utime(model, (0, 0))
    assert forget_old(tmp_path, keep_days=2) == []


def test_a_second_run_of_equal_work_waits_for_the_first(parent, tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "WAIT_POLL_S", 0.01)
    state, entered, go_on = tmp_path / "state", threading.Event(), threading.Event()

    def slow(parent: In, checkpoint: Out, curves: Out, settings: Settings) -> Metrics:
        """Write slowly."""
        entered.set()
        go_on.wait()
        return write(checkpoint, curves, settings)

    train_slowly = replace(train, function=slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(run_kept, train_slowly, parent, places(tmp_path / "1"), {}, state)
        assert entered.wait(10)
        second = pool.submit(run_kept, train, parent, places(tmp_path / "2"), {}, state)
        time.sleep(0.2)
        was_done = second.done()
        go_on.set()
        assert second.result(10) == first.result(10)
        assert not was_done
    assert CALLS["run"] == 1


def test_a_state_folder_of_somebody_else_is_told_with_what_to_do(parent, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "train").write_text("in the way, as a folder of root would be")
    with pytest.raises(InputError, match=r"cannot write the state folder: .*user \d+.*Job"):
        run_kept(train, parent, places(tmp_path / "out"), {}, tmp_path / "state")


class World(StepSettings):
    """A branch or a commit."""

    revision: str = "main"


HEAD = {"main": "first"}


def is_commit(settings: World) -> bool:
    return settings.revision not in HEAD


def commit_of(settings: World) -> dict[str, object]:
    return {"revision": HEAD.get(settings.revision, settings.revision)}


@step(image="train", is_pure=is_commit, pin=commit_of)
def resolve_data(exports: Out, settings: World) -> Metrics:
    """Bring a version."""
    CALLS["run"] += 1
    exports.mkdir()
    (exports / "version").write_text(settings.revision)
    return {"num": 1}


def test_a_branch_that_moves_is_kept_by_the_commit_it_means_at_the_moment(tmp_path, monkeypatch):
    def bring(name: str) -> str:
        run_kept(resolve_data, {}, {"exports": tmp_path / name}, {}, tmp_path / "state")
        return (tmp_path / name / "version").read_text()

    assert [bring("a"), bring("b")] == ["first", "first"]
    monkeypatch.setitem(HEAD, "main", "second")
    assert bring("c") == "second"
    assert CALLS["run"] == 2


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert state_folder() is None
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert state_folder() == tmp_path
