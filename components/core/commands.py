"""Git and DVC as commands: an environment that is the user's own, and the reason of a failure.

A hook, `git rebase --exec` or a scheduler may have set variables that turn Git to another
repository (`GIT_DIR`, `GIT_INDEX_FILE`, …): of Git's variables only those about the person, the
network and the person's own configuration are handed on.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import PipelineError

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
