"""A data repository: a folder under Git and DVC that keeps every published version.

The files are hard links of the run's own (copies across file systems), and DVC's cache is made of
hard links too, so a version is not stored twice on the same disk. DVC makes its files read-only.
"""

import configparser
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.kernel.drafts import remove
from components.kernel.errors import PipelineError
from components.kernel.files import link_or_copy

REMOTE = "storage"
QUIET = {"DVC_NO_ANALYTICS": "true", "DVC_STUDIO_OFFLINE": "true", "DO_NOT_TRACK": "1"}
PYTHON_M = f"{Path(sys.executable).name} -m "
IDENTITY = {"user.name": "pixclip", "user.email": "pixclip@localhost"}


class PublishError(PipelineError):
    """Git or DVC refused; the message holds what it said."""


@dataclass(frozen=True)
class Remote:
    """Where DVC pushes: a folder, or `s3://bucket/prefix` (credentials by AWS's own variables)."""

    url: str
    endpoint_url: str = ""


@dataclass(frozen=True)
class Version:
    """A published version of a data set."""

    git_commit: str
    dvc_md5: str
    num_files: int
    size_bytes: int
    is_new: bool


class DataRepository:
    """The Git and DVC repository at a folder, which is made if it is missing."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.folder, self.remote = folder, remote

    def publish(self, data: Path, name: str, message: str) -> Version:
        """Keep a folder as the newest version of `name`, push it and commit its DVC file.

        The same bytes as last time make no new commit.

        Raises:
            PublishError: Git or DVC failed; nothing is committed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _only_one_at_a_time(self.folder):
            self._open()
            self._require_free(name)
            self._place(data, name)
            self._dvc("add", name)
            self._dvc("push", "--remote", REMOTE, name)
            is_new = self._commit(f"{name}.dvc", message)
            tracked = yaml.safe_load((self.folder / f"{name}.dvc").read_text(encoding="utf-8"))[
                "outs"
            ][0]
            return Version(
                git_commit=self._git("log", "-1", "--format=%H", "--", f"{name}.dvc"),
                dvc_md5=tracked["md5"],
                num_files=tracked["nfiles"],
                size_bytes=tracked["size"],
                is_new=is_new,
            )

    def _open(self) -> None:
        if not (self.folder / ".git").exists():
            self._run("git", "-c", "init.defaultBranch=main", "init", "--quiet")
        for key, value in IDENTITY.items():
            if not self._git("config", "--default", "", "--get", key):
                self._git("config", key, value)
        if not (self.folder / ".dvc").exists():
            self._dvc("init", "--quiet")
        self._configure()

    def _configure(self) -> None:
        """Write DVC's settings into its config file, whose form DVC documents."""
        path = self.folder / ".dvc" / "config"
        config = configparser.ConfigParser(interpolation=None)  # addresses may hold %
        config.read(path)
        remote = {"url": self.remote.url}
        if self.remote.endpoint_url:
            remote["endpointurl"] = self.remote.endpoint_url
        sections = {
            "core": {"analytics": "false", "check_update": "false", "remote": REMOTE},
            # Hard links first: DVC then links its cache to the files instead of copying them.
            "cache": {"type": '"hardlink,reflink,copy"'},
            f"'remote \"{REMOTE}\"'": remote,
        }
        for section, values in sections.items():
            old = dict(config[section]) if config.has_section(section) else {}
            # What the user has set stays; the remote alone is always as the step's settings say.
            config[section] = values if "remote" in section else {**values, **old}
        with path.open("w", encoding="utf-8") as file:
            config.write(file)

    def _require_free(self, name: str) -> None:
        """Refuse to replace what is under Git itself: the user's own files.

        Raises:
            PublishError: the name is that of such a file or folder.
        """
        if self._git("ls-files", "--", name):
            raise PublishError(
                f"{self.folder} has files of its own under `{name}`; choose another publish.name "
                "or publish.repository"
            )

    def _place(self, data: Path, name: str) -> None:
        """Make `name` a tree of hard links of the data."""
        fresh, target = self.folder / f".{name}.new", self.folder / name
        remove(fresh)
        shutil.copytree(data, fresh, copy_function=link_or_copy)
        remove(target)
        fresh.rename(target)

    def _commit(self, pointer: str, message: str) -> bool:
        """Commit DVC's own files, if they changed; whatever else is staged stays out."""
        own = [pointer, ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"]
        own = [path for path in own if (self.folder / path).exists()]
        self._git("add", "--", *own)
        if not self._git("status", "--porcelain", "--", *own):
            return False
        self._git("-c", "commit.gpgsign=false", "commit", "--quiet", "-m", message, "--", *own)
        return True

    def _git(self, *arguments: str) -> str:
        return self._run("git", *arguments)

    def _dvc(self, *arguments: str) -> str:
        return self._run(sys.executable, "-m", "dvc", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **QUIET},
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            told = (done.stderr or done.stdout).strip()
            said = f"{Path(command[0]).name} {' '.join(command[1:])}".removeprefix(PYTHON_M)
            raise PublishError(f"`{said}` in {self.folder} failed: {told}")
        return done.stdout.strip()


@contextmanager
def _only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for another publication into the same repository: DVC would refuse instead."""
    with (folder.parent / f".{folder.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
