"""A repository of Git and DVC: running both, and reading their files without running them.

Git and DVC run in an environment that is the user's own. A hook, `git rebase --exec` or a scheduler
may have set variables that turn Git to another repository (`GIT_DIR`, `GIT_INDEX_FILE`, …): of
Git's variables only those about the person, the network and the person's own configuration are
handed on.

Pointers, listings and configurations may come out of a repository that we were only pointed at, so
everything is bounded and checked, and nothing but addresses and digests is taken from them.
https://dvc.org/doc/user-guide/project-structure
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import InputError, PipelineError
from components.core.hashed import require_name
from components.core.tables import WORK_FOLDER

OF_THE_PERSON = re.compile(
    r"GIT_(AUTHOR|COMMITTER)_|GIT_(SSH|SSL|HTTP|PROXY|CURL|TRACE_CURL)|GIT_ASKPASS$"
    r"|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)$|GIT_EXEC_PATH$"
)
QUIET = {
    "DVC_NO_ANALYTICS": "true",
    "DVC_STUDIO_OFFLINE": "true",
    "DO_NOT_TRACK": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",  # messages that can be read here, names that can be written
    "LANGUAGE": "",
    "PYTHONSAFEPATH": "1",  # `python -m dvc` in a folder that holds a dvc.py
    "PYTHONUTF8": "1",
}
MAX_TOLD_CHARACTERS = 2000
DVC = (sys.executable, "-m", "dvc")
NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SETTING = re.compile(r" -c \S+")  # of Git for one command
OFFERS = ("having any troubles?", "hint:")
MAX_POINTER_BYTES = 1 << 16
MAX_LISTING_BYTES = 1 << 30
FOLDER_MD5 = re.compile(r"[0-9a-f]{32}\.dir")
FILE_MD5 = re.compile(r"[0-9a-f]{32}")
CONFIG_NAME = ".dvc/config"
CACHE = ".dvc/cache"


class CommandError(PipelineError):
    """A command failed; `told` is what it said."""

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told


def command_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what turns Git to another repository.

    A user whom `/etc/passwd` does not know gets a name: DVC asks for one.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("GIT_") and not OF_THE_PERSON.match(name))
        and name not in ("DVC_ROOT", "DVC_STAGE")
    }
    if not any(own.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        own["USER"] = f"uid{os.getuid()}"
    return {**own, **QUIET, **more}


def run_command(
    command: tuple[str, ...], folder: Path, more: Mapping[str, str], told_before: str = ""
) -> str:
    """What a command prints, run in a folder; `told_before` is written to its input.

    Bytes that are not UTF-8 come as surrogates, and go back to a command as they were.

    Raises:
        CommandError: it is not installed, or failed; the message holds what it said.
    """
    words = command[len(DVC) - 1 :] if command[: len(DVC)] == DVC else command
    shown = SETTING.sub("", " ".join(words)).splitlines()[0]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=command_environment(more),
            input=told_before.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise CommandError(f"`{command[0]}` is not installed; install it", "") from None
    except OSError as error:
        raise CommandError(f"`{shown}` cannot be started: {error}", str(error)) from None
    if done.returncode:
        told = _said(done.stderr, done.stdout) or f"exit status {done.returncode}, without a reason"
        raise CommandError(f"`{shown}` in {folder} failed: {told}", told)
    return done.stdout.decode("utf-8", "surrogateescape")


def _said(*outputs: bytes) -> str:
    """Both outputs without progress bars and offers of help, and not without end."""
    lines = [
        line.strip()
        for output in outputs
        for line in NOISE.sub("", output.decode("utf-8", "replace"))
        .replace("\r", "\n")
        .splitlines()
        if line.strip() and not line.strip().lower().startswith(OFFERS)
    ]
    told = "\n".join(lines)
    return told if len(told) <= MAX_TOLD_CHARACTERS else f"… {told[-MAX_TOLD_CHARACTERS:]}"


def entries_at(
    git: Callable[..., str], commit: str, paths: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Mode and object of files and folders as of a commit, by path; `git` runs Git, see `read_at`.

    Raises:
        PipelineError: that of `git`, e.g. where there is no such commit.
    """
    found = {}
    for line in git("ls-tree", "-z", "--full-tree", commit, "--", *paths).split("\0"):
        facts, _, path = line.partition("\t")
        if path:
            mode, _, digest = facts.split(" ")
            found[path] = (mode, digest)
    return found


def read_at(git: Callable[..., str], commit: str, path: str) -> str | None:
    """A file as of a commit; None if it is not there, or is a link or a folder.

    Args:
        git: runs Git with these arguments and gives what it prints; bytes that are not UTF-8 are
            surrogates there, which `to_bytes` gives back.
    """
    mode, digest = entries_at(git, commit, [path]).get(path, ("", ""))
    return git("cat-file", "blob", digest) if mode.startswith("100") else None


def to_bytes(text: str) -> bytes:
    """The bytes of a text of Git or of `read_text`."""
    return text.encode("utf-8", "surrogateescape")


def read_text(path: Path) -> str:
    """A text whose bytes `to_bytes` gives again, UTF-8 or not."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Pointer:
    """What `<name>.dvc` says of a folder: the digest of its listing, and how large it is."""

    md5: str
    num_bytes: int
    num_files: int
    remote: str  # the name of a remote of its own, mostly none


@dataclass(frozen=True)
class RemoteAddress:
    """Where a repository says that its files are."""

    url: str
    endpoint_url: str


def object_name(md5: str) -> str:
    """Where DVC keeps the bytes of a digest, in its cache and in every remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def parse_pointer(content: bytes, name: str) -> Pointer:
    """The pointer to the folder `name`.

    Raises:
        InputError: it is no such pointer, or one of a form that is not read here.
    """
    where = f"{name}.dvc"
    if len(content) > MAX_POINTER_BYTES:
        raise InputError(f"{where} has {len(content)} bytes: it is no pointer file of DVC")
    try:
        outs = yaml.safe_load(content)["outs"]
        (out,) = [out for out in outs if out["path"] == name]
        md5, kind = out.get("md5"), out.get("hash", "")
        numbers = int(out.get("size", 0)), int(out.get("nfiles", 0))
        remote = str(out.get("remote", ""))
    # Its words may be of any type; YAML reads dates and nests as deep as it likes.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{where} is no pointer file of DVC that names `{name}`") from None
    if kind != "md5":
        raise InputError(
            f"{where} was not written by DVC 3 (hash: {str(kind)[:20]!r}); "
            f"run `dvc add {name}` with DVC 3 and commit"
        )
    if not isinstance(md5, str) or not FOLDER_MD5.fullmatch(md5):
        raise InputError(f"{where} names no folder by the digest of its listing (md5: ….dir)")
    return Pointer(md5, *numbers, remote)


def parse_listing(content: bytes, pointer: Pointer) -> dict[str, str]:
    """The files of a folder: relative name -> md5.

    Raises:
        InputError: these are not the bytes that the pointer names, or no listing of safe names.
    """
    where = f"the listing {object_name(pointer.md5)}"
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != pointer.md5[:32]:
        raise InputError(f"{where} is damaged: its bytes have another digest")
    try:
        files = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"{where} is no listing of DVC") from None
    for name, md5 in files.items():
        _require_entry(name, md5, where)
    folders = {"/".join(name.split("/")[:n]) for name in files for n in range(name.count("/") + 1)}
    both = sorted(folders & files.keys())
    if both:
        raise InputError(f"{where} holds {both[0]!r} as a file and as a folder")
    return files


def _require_entry(name: Any, md5: Any, where: str) -> None:
    if not (isinstance(name, str) and isinstance(md5, str) and FILE_MD5.fullmatch(md5)):
        raise InputError(f"{where} is no listing of DVC")
    require_name(name, where)
    if name.split("/")[0] == WORK_FOLDER:
        raise InputError(f"{where} holds {name!r}: unfinished work, which is no part of a data set")


def parse_config(content: bytes) -> dict[str, dict[str, str]]:
    """The sections of a DVC configuration, e.g. `remote "storage"`; sections inside them are not.

    Raises:
        InputError: it is no such configuration.
    """
    from configobj import ConfigObj, ConfigObjError  # with which DVC reads and writes it

    try:
        lines = content.decode("utf-8-sig").splitlines()
        if len(content) > MAX_POINTER_BYTES:
            raise ValueError("too large")
        config = ConfigObj(lines, interpolation=False).dict()
    except (ConfigObjError, ValueError, RecursionError) as error:
        raise InputError(f"{CONFIG_NAME} is no configuration of DVC: {error}") from None
    return {
        section: {
            key.lower(): ",".join(text) if isinstance(text, list) else str(text)
            for key, text in values.items()
        }
        for section, values in config.items()
        if isinstance(values, dict)
    }


def parse_remote(content: bytes, name: str = "") -> RemoteAddress:
    """The address of a remote, or of the default one; no other configuration is looked at.

    Raises:
        InputError: there is no such remote, or it has no address.
    """
    sections = parse_config(content)
    remotes = {
        section.removeprefix("remote ").strip('"'): values
        for section, values in sections.items()
        if section.startswith("remote ")
    }
    name = name or sections.get("core", {}).get("remote", "")
    if not name and len(remotes) == 1:
        (name,) = remotes
    values = remotes.get(name, {})
    if not values.get("url"):
        raise InputError(
            f"{CONFIG_NAME} gives no address of a remote{f' {name!r}' if name else ''}; "
            "set one by `dvc remote add --default`, `dvc push`, and commit"
        )
    return RemoteAddress(values["url"], values.get("endpointurl", ""))
