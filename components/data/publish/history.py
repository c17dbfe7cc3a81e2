"""The Git side of a data repository: made whole, committed to, and never taken over.

What is the user's own stays so: no configuration is written (the identity of a commit comes by the
environment where none is configured), what is staged stays staged, and a commit holds the last
commit's files and ours, whatever else was edited. It is made in an index of its own, so that a
hook that fails, or a kill, leaves nothing staged.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from components.core.drafts import remove
from components.core.dvc_repository import DVC, CommandError, entries_at, read_at, run_command
from components.data.publish.leftovers import git_folders, remove_dead_locks
from components.data.publish.storage import PublishError

log = logging.getLogger(__name__)

GIT = (
    "git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "commit.gpgsign=false",
    "-c", "init.defaultBranch=main", "-c", "core.quotePath=false",
)  # fmt: skip
IDENTITY = {"name": "pixclip", "email": "pixclip@localhost"}
SETUP = ".pixclip-setup"
INDEX = "pixclip-index"
# What Git leaves while the user is in the middle of something.
UNFINISHED = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisection",
}
MAX_WAIT_S = 10.0


class History:
    """The Git repository at a folder; `since` is when we locked it for our own kind."""

    def __init__(self, folder: Path, since: float) -> None:
        self.folder, self._since = folder, since
        self._alive: list[Path] = []  # locks of other processes

    def open(self, dvc_config: str) -> None:
        """Make the repository if it is missing, and remove what a killed process left of it.

        Parts are made beside and renamed: a kill leaves none of them half made.

        Raises:
            PublishError: it is no repository with a work tree that Git opens.
        """
        if (self.folder / "HEAD").is_file() and (self.folder / "objects").is_dir():
            raise PublishError(f"{self.folder} is a bare repository; name one with a work tree")
        if (self.folder / ".git").exists():
            self._alive = remove_dead_locks(self.folder, self._since)
        dvc = self.folder / ".dvc"
        if not ((self.folder / ".git").exists() and (dvc / "config").is_file()):
            self._make(dvc_config)
        remove(self.folder / SETUP)  # also where only this was still to be done
        if not self._is_whole():
            self.git("init", "--quiet")  # of a half-made one Git makes the rest
        top = Path(self.git("rev-parse", "--show-toplevel"))
        if not top.samefile(self.folder):
            raise PublishError(f"{self.folder} has its work tree at {top}; name that folder")

    def _make(self, dvc_config: str) -> None:
        setup = self.folder / SETUP
        remove(setup)
        setup.mkdir()
        run_here((*GIT, "init", "--quiet"), setup)
        if not (self.folder / ".dvc" / "config").is_file():
            run_here((*DVC, "init"), setup)
            (setup / ".dvc" / "config").write_text(dvc_config, encoding="utf-8")
            # DVC staged its own configuration: left in the index it would undo ours.
            (setup / ".git" / "index").unlink(missing_ok=True)
            (self.folder / ".dvc").mkdir(exist_ok=True)
            for name in (".dvcignore", ".dvc/.gitignore", ".dvc/config"):
                if not (self.folder / name).exists():
                    (setup / name).rename(self.folder / name)
        if not (self.folder / ".git").exists():
            (setup / ".git" / "index").unlink(missing_ok=True)  # what DVC has staged there
            (setup / ".git").rename(self.folder / ".git")

    def _is_whole(self) -> bool:
        """Whether Git opens it; False if it is the rest of an `init` that was killed."""
        try:
            self.git("rev-parse", "--is-inside-work-tree")
        except PublishError:
            place = self.folder / ".git"
            holds_objects = any(path.is_file() for path in (place / "objects").rglob("*"))
            if holds_objects or not place.is_dir():
                raise
            return False
        return True

    def require_idle(self) -> None:
        """Refuse to commit while the user is in the middle of something.

        Raises:
            PublishError: says what it is.
        """
        place = git_folders(self.folder)[0]
        for name, what in UNFINISHED.items():
            if (place / name).exists():
                raise PublishError(
                    f"{self.folder} is in the middle of {what}; finish or abort it, then run again"
                )
        until = time.monotonic() + MAX_WAIT_S
        while alive := [path for path in self._alive if path.exists()]:
            if time.monotonic() > until:
                raise PublishError(
                    f"another Git is at work in {self.folder}: {alive[0]} is its lock; run again "
                    "when it has ended"
                )
            time.sleep(0.1)

    def head(self) -> str:
        """The commit that is checked out; empty before the first one."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except PublishError:
            return ""

    def read(self, path: str, commit: str) -> str | None:
        """A file as of a commit; None if it is not there, or is a link or a folder."""
        return read_at(self._printed, commit, path) if commit else None

    def is_tracked(self, path: str) -> bool:
        """Whether Git itself keeps something under a name."""
        return bool(self.git("ls-files", "--", path))

    def newest(self, path: str) -> str:
        """The newest commit that changed a file."""
        return self.git("log", "-1", "--format=%H", "--", path)

    def branch_or_tag(self, commit: str, name: str) -> str:
        """A full name by which a commit of the checked-out history stays to be found.

        Where no branch is checked out (a detached HEAD) and none holds the commit, it gets a tag.
        """
        try:
            branch = self.git("symbolic-ref", "--quiet", "HEAD")
        except PublishError:
            branch = ""
        if branch.startswith("refs/heads/"):
            return branch
        kinds = ("refs/heads", "refs/tags")
        held = self.git("for-each-ref", "--contains", commit, "--format=%(refname)", *kinds)
        if held:
            return held.splitlines()[0]
        tag = f"refs/tags/{name}-{commit[:12]}"
        self.git("update-ref", tag, commit)
        log.warning("%s is on no branch: the version is tagged %s", self.folder, tag)
        return tag

    def commit(self, files: Mapping[str, str], message: str) -> bool:
        """Commit texts as files beside those of the last commit; False if that has them all.

        The user's index does not know of them until `follow`.

        Raises:
            PublishError: Git or a hook refused; nothing is committed or staged.
        """
        head, place = self.head(), git_folders(self.folder)[0].absolute()
        index = place / INDEX
        index.unlink(missing_ok=True)
        own = {"GIT_INDEX_FILE": str(index)}
        try:
            if head:
                self.git("read-tree", head, more=own)
            for path, text in files.items():
                self._stage(path, self._blob(text), own)
            tree = self.git("write-tree", more=own)
            is_new = not head or tree != self.git("rev-parse", f"{head}^{{tree}}")
            if is_new:
                self.git("commit", "--quiet", "-m", message, more={**own, **self._identity()})
        finally:
            index.unlink(missing_ok=True)
        return is_new

    def _stage(self, path: str, blob: str, more: Mapping[str, str]) -> None:
        self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", more=more)

    def _blob(self, text: str) -> str:
        return run_here((*GIT, "hash-object", "-w", "--stdin"), self.folder, None, text).strip()

    def follow(self, paths: list[str]) -> None:
        """Bring the user's index to what was committed, but for what the user has staged."""
        head = self.head()
        try:
            before = entries_at(self._printed, f"{head}^", paths)
        except PublishError:  # the first commit has none before it
            before = {}
        lines = self._printed("ls-files", "--stage", "-z", "--", *paths).split("\0")
        staged = {}
        for line in filter(None, lines):
            facts, _, path = line.partition("\t")
            mode, blob, _ = facts.split(" ")
            staged[path] = (mode, blob)
        for path, (mode, blob) in entries_at(self._printed, head, paths).items():
            if staged.get(path) not in ((mode, blob), before.get(path), None):
                continue
            if staged.get(path) != (mode, blob):
                try:
                    self._stage(path, blob, {})
                except PublishError as error:
                    log.warning("the version is committed, but %s; `git reset` helps", error)

    def _identity(self) -> dict[str, str]:
        """Author and committer, as variables, where the user has configured none."""
        kinds = r"^(user|author|committer)\.(name|email)$"
        try:
            text = self._printed("config", "-z", "--get-regexp", kinds)
        except PublishError:  # there is none
            text = ""
        pairs = [entry.partition("\n") for entry in text.split("\0")]
        known = {key for key, _, value in pairs if value.strip()}
        if os.environ.get("EMAIL"):
            known.add("user.email")
        return {
            f"GIT_{role}_{what}".upper(): fallback
            for role in ("author", "committer")
            for what, fallback in IDENTITY.items()
            if not os.environ.get(f"GIT_{role}_{what}".upper())
            and not known & {f"user.{what}", f"{role}.{what}"}
        }

    def git(self, *arguments: str, more: Mapping[str, str] | None = None) -> str:
        """What Git prints, without the white space around it.

        Raises:
            PublishError: it failed; the message holds what it said.
        """
        return run_here((*GIT, *arguments), self.folder, more).strip()

    def _printed(self, *arguments: str) -> str:
        """What Git prints, as it is."""
        return run_here((*GIT, *arguments), self.folder)


def run_here(
    command: tuple[str, ...],
    folder: Path,
    more: Mapping[str, str] | None = None,
    told_before: str = "",
) -> str:
    """Run Git or DVC in the repository at a folder, and never in one around it.

    Raises:
        PublishError: it failed; the message holds what it said.
    """
    around = {str(folder.parent), os.path.realpath(folder.parent)}
    own = {
        "GIT_CEILING_DIRECTORIES": os.pathsep.join(sorted(around)),
        # Of its own and new: DVC else believes what it once saw in a remote, and writes to /var.
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "pixclip-site"),
    }
    try:
        return run_command(command, folder, {**own, **(more or {})}, told_before)
    except CommandError as error:
        raise PublishError(str(error)) from None
