"""Unfinished work: what of it stays when settings change, and what is left of a killed run."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from components.core import drafts as drafts_module
from components.core.errors import ContractViolation, InputError
from components.core.run import run_step
from components.core.step import In, Metrics, Out, StepSettings, Work, step
from components.core.tables import WORK_FOLDER

CALLS: Counter[str] = Counter()


class Settings(StepSettings):
    """One setting."""

    text: str = "hello"
    is_killed: bool = False


@step(image="train")
def train(parent: In, checkpoint: Out, curves: Out, settings: Settings) -> Metrics:
    """Pay for an answer, unless it is there."""
    answer = checkpoint / WORK_FOLDER / "answer"
    answer.parent.mkdir(parents=True, exist_ok=True)
    if not answer.exists():
        CALLS["paid"] += 1
        answer.write_text("42")
    if settings.is_killed:
        raise KeyboardInterrupt
    (checkpoint / "model").write_text(settings.text)
    (checkpoint / "model").chmod(0o600)  # as safetensors writes
    curves.write_text(f"{settings.text}\n")
    return {}


STEPS = {work: replace(train, work=work) for work in Work}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def make(run: Path, work: Work = Work.CHEAP, name: str = "checkpoint", **settings: object) -> None:
    outputs = {"checkpoint": run / name, "curves": run / "curves.csv"}
    run_step(STEPS[work], {"parent": run / "parent"}, outputs, settings)


def kill(run: Path, work: Work, **settings: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(run, work, is_killed=True, **settings)


def left(run: Path) -> list[str]:
    return sorted(path.name for path in run.rglob(".*") if path.name != ".owner-of-curves.csv.note")


def test_cheap_work_of_other_settings_is_removed(run):
    kill(run, Work.CHEAP)
    make(run, Work.CHEAP)
    assert CALLS["paid"] == 2
    assert not left(run)


def test_portable_work_goes_on_under_other_settings(run, caplog):
    kill(run, Work.PORTABLE)
    kill(run, Work.PORTABLE, text="other")
    (run / "parent" / "weights").write_text("other input")
    make(run, Work.PORTABLE, text="third")
    assert CALLS["paid"] == 1
    assert (run / "checkpoint" / "model").read_text() == "third"
    assert not left(run)


def test_kept_work_of_other_settings_stays_is_named_and_goes_on_with_its_own(run, caplog):
    kill(run, Work.KEPT)
    (draft,) = run.glob(".checkpoint.draft-*")
    make(run, Work.KEPT, text="other")
    assert f"{draft} holds unfinished work" in caplog.text
    assert left(run) == [draft.name]
    answer = draft / WORK_FOLDER / "answer"
    answer.write_text("the old one")
    kill(run, Work.KEPT)
    assert answer.read_text() == "the old one"
    assert CALLS["paid"] == 2


def test_a_killed_move_of_work_loses_none_of_it(run, monkeypatch):
    kill(run, Work.PORTABLE)
    with monkeypatch.context() as patch:
        patch.setattr(drafts_module, "_remove_drafts", stop)
        with pytest.raises(KeyboardInterrupt):
            make(run, Work.PORTABLE, text="other")
    make(run, Work.PORTABLE, text="other")
    assert CALLS["paid"] == 1
    assert not left(run)


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_run_killed_after_the_last_rename_leaves_nothing_stale(run, monkeypatch):
    make(run, text="older")
    unlink = Path.unlink

    def killed(path: Path, **how: bool) -> None:
        if path.name.endswith(".publishing.json"):
            raise KeyboardInterrupt
        unlink(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            make(run)
    assert left(run), "the test must leave a journal"
    make(run)
    assert CALLS["paid"] == 2
    assert not left(run)


@pytest.fixture
def unfinished(run, monkeypatch) -> Path:
    """A run that was killed before its last rename; its journal."""
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.name.startswith(".checkpoint.draft-"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            make(run)
    assert not (run / "checkpoint").exists()
    return run / ".checkpoint.publishing.json"


@pytest.mark.usefixtures("unfinished")
def test_what_was_being_published_appears_whole_although_the_settings_changed_since(run):
    with pytest.raises(KeyboardInterrupt):
        make(run, text="other", is_killed=True)
    assert (run / "checkpoint" / "model").read_text() == "hello"
    assert (run / "curves.csv").read_text() == "hello\n"


def test_a_journal_with_any_flipped_bit_publishes_nothing_false(unfinished, run):
    content = unfinished.read_bytes()
    saved = run.with_name("saved")
    shutil.copytree(run, saved)
    for position in range(len(content)):
        shutil.rmtree(run)
        shutil.copytree(saved, run)
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 7
        unfinished.write_bytes(flipped)
        make(run)
        assert (run / "checkpoint" / "model").read_text() == "hello"
        assert (run / "curves.csv").read_text() == "hello\n"
        assert not left(run)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ready": {"checkpoint": "../x"}}'])
def test_a_damaged_journal_of_publishing_stops_nobody(run, content):
    (run / ".checkpoint.publishing.json").write_text(content)
    make(run)
    assert (run / "checkpoint" / "model").exists()
    assert not left(run)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_published_files_can_be_read_by_whom_the_umask_lets(run, umask, mode):
    before = os.umask(umask)
    try:
        make(run)
    finally:
        os.umask(before)
    assert (run / "checkpoint" / "model").stat().st_mode & 0o777 == mode


def test_a_file_that_somebody_else_wrote_is_not_replaced(run):
    (run / "curves.csv").write_text("my thesis")
    with pytest.raises(InputError, match=r"curves\.csv is there already"):
        make(run)
    assert (run / "curves.csv").read_text() == "my thesis"
    assert not CALLS["paid"], "it is told before any work is done"


def test_the_file_of_another_run_is_not_replaced(run):
    make(run)
    for _ in range(2):
        with pytest.raises(InputError, match=r"it is another run's or somebody's file"):
            make(run, name="other", text="other")
        assert (run / "curves.csv").read_text() == "hello\n"
        shutil.rmtree(run / "checkpoint", ignore_errors=True)  # its owner is known all the same


def test_a_file_is_known_again_when_the_folder_beside_it_was_lost(run):
    make(run)
    shutil.rmtree(run / "checkpoint")
    make(run, text="other")
    assert (run / "curves.csv").read_text() == "other\n"


def test_a_run_folder_that_was_moved_knows_its_files(run, tmp_path_factory):
    make(run)
    moved = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.move(run, moved)
    shutil.rmtree(moved / "checkpoint")
    make(moved)


@pytest.mark.parametrize("note", ["", "[]", "{", "[" * 100_000])
def test_a_damaged_note_vouches_for_nothing(run, note):
    make(run)
    (run / ".owner-of-curves.csv.note").write_text(note)
    make(run, text="other")  # the receipt knows the file
    (run / ".owner-of-curves.csv.note").write_text(note)
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(InputError, match="was not published with"):
        make(run)


@pytest.mark.parametrize("kind", ["edited", "link", "dangling"])
def test_a_file_that_was_changed_since_is_not_replaced(run, kind):
    make(run)
    curves, other = run / "curves.csv", run / "other.txt"
    if kind == "edited":
        curves.write_text("with my remarks")
    else:
        curves.unlink()
        curves.symlink_to(other)
        if kind == "link":
            other.write_text("mine")
    with pytest.raises(InputError, match=r"curves\.csv is there already"):
        make(run, text="other")
    assert kind != "link" or other.read_text() == "mine"


def test_a_step_replaces_its_own_file(run):
    make(run)
    make(run, text="other")
    assert (run / "curves.csv").read_text() == "other\n"


@pytest.mark.parametrize("work", Work)
def test_a_draft_that_breaks_its_contract_is_made_again_from_the_work_that_is_worth_something(
    run, work, monkeypatch
):
    def violated(step: str, inputs: object, drafts: dict[str, Path], metrics: Metrics) -> None:
        raise ContractViolation("checkpoint", ["model_known"])

    with monkeypatch.context() as patch:
        patch.setattr("components.core.run.check_drafts", violated)
        with pytest.raises(ContractViolation):
            make(run, work)
    drafts = [path for path in run.rglob("*") if path.name in ("model", "answer")]
    assert [path.name for path in drafts] == ([] if work is Work.CHEAP else ["answer"])
    assert not list(run.glob(".curves*"))
    make(run, work)
    assert CALLS["paid"] == (2 if work is Work.CHEAP else 1)
