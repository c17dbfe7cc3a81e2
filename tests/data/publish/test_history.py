"""The Git side of publishing, with real Git: nothing of the user's is touched, reasons are told."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from components.core.dvc_repository import DVC, command_environment
from components.data.publish.history import History, run_here
from components.data.publish.storage import PublishError

CONFIG = "[core]\nremote = storage\n"
FILES = {"animals.dvc": "outs: []\n", ".gitignore": "/animals\n"}


@pytest.fixture(autouse=True)
def no_identity(tmp_path, monkeypatch):
    """A machine on which Git knows no user."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)


def git(folder: Path, *arguments: str) -> str:
    environment = {name: text for name, text in os.environ.items() if name != "GIT_DIR"}
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_project(folder: Path) -> Path:
    """A repository of the user's own, whose DVC is set up."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(CONFIG)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "start")
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path / "project")


def opened(folder: Path) -> History:
    history = History(folder, time.time())
    history.open(CONFIG)
    return history


def commit(folder: Path, files: dict[str, str] = FILES, message: str = "Publish") -> bool:
    history = opened(folder)
    history.require_idle()
    is_new = history.commit(files, message)
    history.follow(list(files))
    return is_new


def author(folder: Path) -> str:
    return git(folder, "log", "-1", "--format=%an <%ae> %cn <%ce>")


def test_where_no_identity_is_configured_the_commit_has_ours_and_the_configuration_none(project):
    before = (project / ".git" / "config").read_bytes()
    assert commit(project)
    ours = "pixclip <pixclip@localhost>"
    assert author(project) == f"{ours} {ours}"
    assert (project / ".git" / "config").read_bytes() == before


@pytest.mark.parametrize(
    ("configured", "variables", "expected"),
    [
        ({"user.name": "Ada"}, {}, "Ada <pixclip@localhost> Ada <pixclip@localhost>"),
        (
            {"author.name": "Ada", "author.email": "a@b"},
            {},
            "Ada <a@b> pixclip <pixclip@localhost>",
        ),
        ({"user.name": ""}, {}, "pixclip <pixclip@localhost> pixclip <pixclip@localhost>"),
        (
            {},
            {"GIT_AUTHOR_NAME": "Bo", "EMAIL": "bo@c"},
            "Bo <bo@c> pixclip <bo@c>",
        ),
        (
            {"user.useConfigOnly": "true"},
            {},
            "pixclip <pixclip@localhost> pixclip <pixclip@localhost>",
        ),
    ],
)
def test_of_a_half_configured_identity_only_the_rest_is_ours(
    project, monkeypatch, configured, variables, expected
):
    for key, value in configured.items():
        git(project, "config", key, value)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    commit(project)
    assert author(project) == expected


def test_a_version_on_a_detached_head_gets_a_tag(project):
    git(project, "checkout", "--quiet", "--detach")
    commit(project)
    made = git(project, "rev-parse", "HEAD")
    ref = opened(project).branch_or_tag(made, "animals")
    assert ref == f"refs/tags/animals-{made[:12]}"
    git(project, "checkout", "--quiet", "main")
    assert git(project, "rev-parse", f"{ref}^{{commit}}") == made
    assert opened(project).branch_or_tag(made, "animals") == "refs/heads/main"


def test_a_detached_commit_that_a_branch_or_tag_holds_gets_no_other(project):
    commit(project)
    git(project, "tag", "v1")
    git(project, "checkout", "--quiet", "--detach")
    made = git(project, "rev-parse", "HEAD")
    assert opened(project).branch_or_tag(made, "animals") == "refs/heads/main"
    git(project, "branch", "--quiet", "-D", "main")
    assert opened(project).branch_or_tag(made, "animals") == "refs/tags/v1"


@pytest.mark.parametrize(
    "name",
    [
        "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
        "GIT_NAMESPACE", "GIT_TEMPLATE_DIR", "GIT_DEFAULT_HASH",
    ],
)  # fmt: skip
def test_variables_that_point_to_another_repository_are_not_obeyed(tmp_path, monkeypatch, name):
    other = make_project(tmp_path / "other")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    project = make_project(tmp_path / "project")
    places = {"GIT_INDEX_FILE": "index", "GIT_OBJECT_DIRECTORY": "objects"}
    value = {"GIT_NAMESPACE": "other", "GIT_DEFAULT_HASH": "sha256"}.get(
        name, str(other / ".git" / places.get(name, ""))
    )
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        commit(project)
        fresh = tmp_path / "fresh"
        (fresh / ".dvc").mkdir(parents=True)
        (fresh / ".dvc" / "config").write_text(CONFIG)
        commit(fresh)
    for folder in (project, fresh):
        assert git(folder, "show", "--stat", "--format=%s", "main").startswith("Publish")
        assert len(git(folder, "rev-parse", "main")) == 40
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("hook", ["pre-commit", "commit-msg", "prepare-commit-msg"])
def test_the_reason_of_a_failing_hook_is_told_and_nothing_stays_staged(project, hook):
    (project / "notes.txt").write_text("mine")
    git(project, "add", "notes.txt")
    path = project / ".git" / "hooks" / hook
    path.write_text("#!/bin/sh\necho lint failed >&2; exit 1\n")
    path.chmod(0o755)
    with pytest.raises(PublishError, match=r"`git commit.*lint failed"):
        commit(project)
    assert git(project, "diff", "--cached", "--name-only") == "notes.txt"
    assert git(project, "log", "--format=%s") == "start"
    path.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(PublishError, match=r"`git commit.*exit status \d+, without a reason"):
        commit(project)


def test_a_hook_that_is_killed_leaves_nothing_staged_either(project):
    path = project / ".git" / "hooks" / "pre-commit"
    path.write_text("#!/bin/sh\nkill -9 $PPID\n")
    path.chmod(0o755)
    with pytest.raises(PublishError):
        commit(project)
    path.unlink()
    assert git(project, "status", "--porcelain", "--untracked-files=no") == ""
    assert commit(project)


def test_what_the_user_has_staged_and_edited_stays_so(project):
    (project / ".gitignore").write_text("/build\n")
    (project / "notes.txt").write_text("mine")
    git(project, "add", ".gitignore", "notes.txt")
    git(project, "commit", "--quiet", "-m", "notes")
    (project / ".gitignore").write_text("/build\n/half-an-idea\n")
    (project / "notes.txt").write_text("mine, staged")
    git(project, "add", "notes.txt")
    (project / "notes.txt").write_text("mine, edited")
    commit(project, {**FILES, ".gitignore": "/build\n/animals\n"})
    assert git(project, "show", "--name-only", "--format=") == ".gitignore\nanimals.dvc"
    assert git(project, "show", "HEAD:.gitignore") == "/build\n/animals"
    assert (project / ".gitignore").read_text() == "/build\n/half-an-idea\n"
    assert git(project, "diff", "--cached", "--name-only") == "notes.txt"
    assert git(project, "show", ":notes.txt") == "mine, staged"


def test_the_same_files_make_no_commit(project):
    assert commit(project)
    head = git(project, "rev-parse", "HEAD")
    assert not commit(project)
    assert git(project, "rev-parse", "HEAD") == head


@pytest.mark.parametrize(
    ("name", "what"), [("MERGE_HEAD", "a merge"), ("CHERRY_PICK_HEAD", "a cherry-pick")]
)
def test_nothing_is_committed_into_the_middle_of_what_the_user_does(project, name, what):
    (project / ".git" / name).write_text(git(project, "rev-parse", "HEAD") + "\n")
    with pytest.raises(PublishError, match=f"in the middle of {what}; finish or abort it"):
        commit(project)


def test_a_rebase_that_has_stopped_is_not_committed_into(project):
    (project / "notes.txt").write_text("one")
    git(project, "add", "notes.txt")
    git(project, "commit", "--quiet", "-m", "one")
    with pytest.raises(subprocess.CalledProcessError):
        git(project, "rebase", "--quiet", "--exec", "false", "HEAD~1")
    with pytest.raises(PublishError, match="in the middle of a rebase"):
        commit(project)


def test_a_broken_repository_inside_another_does_not_reach_the_outer_one(project):
    inner = project / "runs" / "repository"
    (inner / ".dvc").mkdir(parents=True)
    (inner / ".dvc" / "config").write_text(CONFIG)
    commit(inner)
    (inner / ".git" / "HEAD").write_text("")
    with pytest.raises(PublishError, match="not a git repository"):
        commit(inner)
    assert git(project, "log", "--format=%s") == "start"


def test_the_rest_of_an_init_that_was_killed_is_made_whole(tmp_path):
    for number, left in enumerate(([], ["HEAD"], ["HEAD", "config.lock"], ["objects/", "refs/"])):
        folder = tmp_path / f"repository{number}"
        (folder / ".dvc").mkdir(parents=True)
        (folder / ".dvc" / "config").write_text(CONFIG)
        (folder / ".git").mkdir()
        for name in left:
            path = folder / ".git" / name
            if name.endswith("/"):
                path.mkdir()
            else:
                path.write_text("ref: refs/heads/main\n" if name == "HEAD" else "")
                os.utime(path, (1, 1))
        commit(folder)
        assert git(folder, "log", "--format=%s", "main") == "Publish"


def test_what_a_kill_left_of_the_setting_up_goes(project):
    (project / ".pixclip-setup" / ".dvc" / "tmp").mkdir(parents=True)
    commit(project)
    assert not (project / ".pixclip-setup").exists()


def test_a_bare_repository_and_one_with_its_files_elsewhere_are_refused(tmp_path, project):
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(PublishError, match="is a bare repository; name one with a work tree"):
        opened(tmp_path / "bare.git")
    (tmp_path / "elsewhere").mkdir()
    git(project, "config", "core.worktree", str(tmp_path / "elsewhere"))
    with pytest.raises(PublishError, match="has its work tree at"):
        opened(project)


def test_a_linked_work_tree_is_a_repository_too(project, tmp_path):
    git(project, "worktree", "add", "--quiet", str(tmp_path / "linked"), "-b", "data")
    (tmp_path / "linked" / ".dvc").mkdir()
    (tmp_path / "linked" / ".dvc" / "config").write_text(CONFIG)
    assert commit(tmp_path / "linked")
    assert git(project, "log", "--format=%s", "data").startswith("Publish")


def test_a_dvc_py_in_the_repository_is_not_run(project):
    for name in ("dvc.py", "yaml.py", "json.py"):
        (project / name).write_text("raise SystemExit('run!')")
    assert run_here((*DVC, "--version"), project, {}).startswith("3.")


def test_a_user_whom_no_list_knows_has_a_name_for_dvc(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert command_environment({})["USER"] == f"uid{os.getuid()}"
    monkeypatch.setenv("LOGNAME", "ada")
    assert "USER" not in command_environment({})


def test_git_that_is_not_installed_is_told(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PublishError, match="`git` is not installed"):
        opened(project)
