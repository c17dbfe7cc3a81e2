"""What a program of this project sees to first, on machines that differ from a developer's.

Names of files and their texts are UTF-8, whatever the locale says. Whoever runs it has a name and
a home, also in a container, whose user id `/etc/passwd` may not know: MLflow, Airflow, DVC and
torch ask for both, and fail late without. And it is not alone: threads that wait leave the cores to
others.
"""

import contextlib
import ctypes
import getpass
import io
import logging
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.credentials import without_credentials

# The encoding of the console, for a process that was started anew to use UTF-8 for all else.
CONSOLE = "PIXCLIP_CONSOLE_ENCODING"
# OpenMP's threads (torch's) sleep while they wait for work. By default they spin for a while, which
# makes every step many times slower as soon as anything else needs the cores. It is read when
# OpenMP's library is loaded. The second is GNU's, the first that of every OpenMP.
WAITING_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
OWN_S3, S3 = "PIXCLIP_S3_", "AWS_"
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies


def begin() -> None:
    """See to encodings, user name, home and threads; to be called before anything else is done.

    Starts this program anew, in Python's UTF-8 mode, if the locale has another encoding.
    """
    use_utf8()
    name_user()
    share_cores()


def take_own_s3_names() -> None:
    """Give S3 clients what a task has under names of its own: PIXCLIP_S3_ENDPOINT_URL and the like.

    A variable AWS_* of a Kubeflow task would be its launcher's too, which fetches and stores the
    artifacts elsewhere.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(OWN_S3) and value}
    os.environ.update({S3 + name.removeprefix(OWN_S3): value for name, value in own.items()})


def share_cores() -> None:
    """Let the threads of this process and of its children sleep while they wait for work."""
    os.environ.update(sharing_cores(os.environ))


def sharing_cores(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment whose programs' threads sleep while they wait, unless it says how they do."""
    if any(name in environment for name in WAITING_THREADS):
        return dict(environment)
    return {**environment, **WAITING_THREADS}


def num_cores() -> int:
    """The cores that this process may use: those of its machine, job or container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_LIMIT.read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        return cores


def use_utf8() -> None:
    """Read arguments, name files and talk to other programs in UTF-8, whatever the locale says."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.environ[CONSOLE] = getattr(sys.stdout, "encoding", "") or "utf-8"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    encoding = os.environ.pop(CONSOLE, "")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a console cannot show must not end a step.
            stream.reconfigure(encoding=encoding or stream.encoding, errors="backslashreplace")


def name_user() -> None:
    """Give this process and its children a user name and a home, where the machine has none."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = os.environ["USER"] = f"uid-{os.getuid()}"
    if not os.environ.get("HOME"):  # empty would stand for the root of the file system
        os.environ.pop("HOME", None)
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.access(home, os.W_OK | os.X_OK):
        return
    folder = _own_folder()
    if not os.path.isdir(home):
        os.environ["HOME"] = str(folder)
    os.environ.setdefault("XDG_CACHE_HOME", str(folder / ".cache"))
    os.environ.setdefault("PIXCLIP_CACHE", str(folder / ".cache" / "pixclip"))


def _own_folder() -> Path:
    """A folder for temporary files that is this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"pixclip-home-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="pixclip-home-"))


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Let this process get a signal when its parent dies; for `preexec_fn`."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


_is_forked_clean = False


def say_forked_clean() -> None:
    """Note that this process is the fork of one whose libraries have not computed anything yet.

    A fork has one thread, whatever its parent had. OpenMP, whose threads start with torch's first
    computation, would wait for the others for ever.
    """
    global _is_forked_clean
    _is_forked_clean = True


def is_forked_clean() -> bool:
    """Whether forks of this process may compute: see `say_forked_clean`."""
    return _is_forked_clean


# They say a line a request or a picture; the steps' own progress bars tell more in less.
CHATTY_LOGGERS = ("botocore", "PIL", "great_expectations")


class DiscreetRecord(logging.LogRecord):
    """A line of the log without the passwords and tokens of addresses, also of rows' addresses."""

    def getMessage(self) -> str:  # noqa: N802  # as logging calls it
        """The message with its arguments."""
        return without_credentials(super().getMessage())


def quieten_libraries() -> None:
    """Let libraries log only warnings, and nobody log a password."""
    logging.setLogRecordFactory(DiscreetRecord)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
