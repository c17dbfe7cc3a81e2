"""What a killed Git or DVC left is repaired; what a living one holds is never touched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.data.publish import history as history_module
from components.data.publish import leftovers
from components.data.publish.leftovers import remove_dead_locks
from components.data.publish.storage import PublishError
from tests.data.publish.test_history import commit, git, make_project

OLD = time.time() - 3600


@pytest.fixture(autouse=True)
def no_identity(tmp_path, monkeypatch):
    """A machine on which Git knows no user, and that waits for nobody."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setattr(history_module, "MAX_WAIT_S", 0.2)


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path / "project")


def leave(path: Path, text: str = "") -> Path:
    """A lock of long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (OLD, OLD))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock",
        "pixclip-index.lock", "refs/heads/main.lock", "refs/heads/deep/er.lock",
        "refs/tags/v1.lock", "objects/info/commit-graphs/commit-graph-chain.lock",
    ],
)  # fmt: skip
def test_the_lock_of_a_dead_git_is_removed_with_a_warning(project, name, caplog):
    lock = leave(project / ".git" / name)
    assert commit(project)
    assert not lock.exists()
    assert f"removed {lock}: the process that left it is gone" in caplog.text
    git(project, "pack-refs", "--all")
    git(project, "tag", "v1")


def test_all_locks_at_once_and_those_of_a_linked_work_tree_are_removed(project, tmp_path):
    git(project, "worktree", "add", "--quiet", str(tmp_path / "linked"), "-b", "data")
    (tmp_path / "linked" / ".dvc").mkdir()
    (tmp_path / "linked" / ".dvc" / "config").write_text("")
    common = project / ".git"
    names = ["worktrees/linked/index.lock", "worktrees/linked/HEAD.lock", "refs/heads/data.lock"]
    locks = [leave(common / name) for name in (*names, "packed-refs.lock")]
    assert commit(tmp_path / "linked")
    assert not [lock for lock in locks if lock.exists()]


def test_a_young_lock_is_waited_for_and_then_removed(project, monkeypatch):
    monkeypatch.setattr(leftovers, "MIN_AGE_S", 0.1)
    lock = project / ".git" / "index.lock"
    lock.touch()
    in_a_day = time.time() + 24 * 3600  # the clock of the machine that left it was ahead
    os.utime(lock, (in_a_day, in_a_day))
    assert commit(project)
    assert not lock.exists()


def test_a_lock_that_a_process_has_open_stays(project):
    lock = leave(project / ".git" / "HEAD.lock")
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'a'); print(flush=True); input()",
         str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        holder.stdout.readline()
        with pytest.raises(PublishError, match=r"another Git is at work in .*HEAD\.lock"):
            commit(project)
        assert lock.exists()
        holder.communicate(b"\n")
    assert commit(project)


@pytest.mark.parametrize("where", ["inside", "by --git-dir"])
def test_the_lock_of_a_git_that_waits_for_its_user_stays(project, tmp_path, where):
    (project / "notes.txt").write_text("mine")
    git(project, "add", "notes.txt")
    started = tmp_path / "started"
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\ntouch {started}\nwhile [ -e {started} ]; do sleep 0.05; done\n")
    editor.chmod(0o755)
    options = [] if where == "inside" else [f"--git-dir={project}/.git", f"--work-tree={project}"]
    environment = {**os.environ, "GIT_EDITOR": str(editor)}
    user = subprocess.Popen(
        ["git", *options, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-qa"],
        cwd=project / ".dvc" if where == "inside" else tmp_path,
        env=environment,
        start_new_session=True,
    )
    try:
        lock = project / ".git" / "index.lock"
        until = time.monotonic() + 10
        while not started.exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.utime(lock, (OLD, OLD))
        with pytest.raises(PublishError, match=r"another Git is at work in .*index\.lock"):
            commit(project)
        assert lock.exists()
    finally:
        os.killpg(user.pid, signal.SIGKILL)
        user.wait()
    assert commit(project), "now it is dead"
    assert not lock.exists()


def test_a_git_at_work_elsewhere_keeps_no_lock(project, tmp_path):
    lock = leave(project / ".git" / "index.lock")
    program = tmp_path / "git"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen(["git", "60"], executable=program, cwd=tmp_path) as other:
        try:
            assert remove_dead_locks(project, time.time()) == []
        finally:
            other.kill()
    assert not lock.exists()


def test_daemons_of_git_are_no_git_at_work():
    process = leftovers.Process(1, 0, "git", b"git\0fsmonitor--daemon\0run\0", "/x", frozenset())
    assert not process.is_git()


def test_what_cannot_be_seen_is_taken_for_alive(project, monkeypatch, tmp_path):
    lock = leave(project / ".git" / "index.lock")
    unseen = leftovers.Process(7, lock.stat().st_uid, "git", b"git\0commit\0", None, frozenset())
    monkeypatch.setattr(leftovers, "processes", lambda: [unseen])
    assert remove_dead_locks(project, time.time()) == [lock]
    monkeypatch.setattr(leftovers, "processes", lambda: None)
    assert remove_dead_locks(project, time.time()) == [lock]
    monkeypatch.setattr(leftovers, "processes", list)
    assert remove_dead_locks(project, time.time()) == []
    assert not lock.exists()


RWLOCKS = {
    "cut off": '{"write": {"lo',
    "of the dead": json.dumps({"write": {"x": {"pid": 2**22 - 3, "cmd": "dvc add"}}}),
    "pid used again": json.dumps({"read": {"x": [{"pid": 1, "cmd": "dvc add"}]}}),
    "no mapping": "[]",
    "empty": "",
}


@pytest.mark.parametrize("text", RWLOCKS.values(), ids=RWLOCKS.keys())
def test_the_notes_of_a_dead_dvc_are_removed(project, text):
    notes = leave(project / ".dvc" / "tmp" / "rwlock", text)
    commit(project)
    assert not notes.exists()


def test_the_notes_of_a_living_dvc_and_empty_ones_stay(project, monkeypatch):
    notes = leave(project / ".dvc" / "tmp" / "rwlock", RWLOCKS["cut off"])
    alive = leftovers.Process(
        7, 0, "python", b"python\0-m\0dvc\0add\0", str(project.resolve()), frozenset()
    )
    monkeypatch.setattr(leftovers, "processes", lambda: [alive])
    remove_dead_locks(project, time.time())
    assert notes.exists()
    notes.write_text('{"write": {}, "read": {}}')
    monkeypatch.setattr(leftovers, "processes", list)
    remove_dead_locks(project, time.time())
    assert notes.exists()


def test_a_lock_of_dvc_that_is_a_link_ends_with_its_process(project):
    lock = leave(project / ".dvc" / "tmp" / "lock", "host|1|2")
    os.link(lock, lock.with_name("claim.lock"))
    commit(project)
    assert not lock.exists()
