"""Run a module on several ranks through torchrun, and end it in good order.

Where the environment says so (`PIXCLIP_TRAINJOB`), the ranks run on other nodes; see `nodes.py`.
Here the step's process only waits: SIGTERM goes on to the ranks, which save their state and stop.
If the step's process is killed, the ranks get SIGTERM too, and the next attempt waits until they
are gone.
"""

import argparse
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from components.core.errors import InputError, PipelineError, RanksFailed
from components.core.process import end_with_parent, num_cores, sharing_cores
from components.core.trainjob import Ranks, job_place

log = logging.getLogger(__name__)

LOCK_NAME = ".ranks.lock"
SHUTDOWN_S = 120  # for the step that runs and the saving of the state, after SIGTERM
STOPPED = 128 + signal.SIGTERM  # exit code of a process that was asked to stop


def run_ranks(module: str, job: Path, *, num_ranks: int) -> None:
    """Run `python -m <module> --job <job>` on `num_ranks` processes, of this machine or of nodes.

    Raises:
        SystemExit: this process got SIGTERM; the ranks have ended.
        InputError: a rank refused its data, model or settings, with its reason.
        RanksFailed: a rank failed otherwise; its traceback is above in the log.
        ClusterRefused: the ranks belong on nodes, and the cluster does not take them.
    """
    place = job_place(os.environ)
    with _only_ranks(job.parent) as lock:
        if place:
            from components.core.nodes import run_on_nodes  # with Kubernetes' client

            run_on_nodes(Ranks(module, job, num_ranks), place)
        else:
            _run_here(module, job, num_ranks, lock)


def runs_on_nodes() -> bool:
    """Whether ranks of this step run on other nodes."""
    return job_place(os.environ) is not None


@contextmanager
def job_of_rank(about: str) -> Iterator[Path]:
    """The file that `--job` names; an error of this project's is told as the rank's refusal."""
    from pixclip.training.job import failure_told

    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--job", type=Path, required=True, help="what to do, as JSON")
    path = parser.parse_args().job
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with failure_told(path):
        try:
            yield path
        except PipelineError as error:
            raise ValueError(str(error)) from error


def _run_here(module: str, job: Path, num_ranks: int, lock: int) -> None:
    from pixclip.training.job import forget_failure, read_failure

    forget_failure(job)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--shutdown-timeout", str(SHUTDOWN_S)),
        *("--nproc-per-node", str(num_ranks), "-m", module, "--job", str(job)),
    ]
    threads = str(max(1, num_cores() // num_ranks))
    environment = {"OMP_NUM_THREADS": threads, **sharing_cores(os.environ)}
    with (
        subprocess.Popen(
            command, env=environment, pass_fds=[lock], preexec_fn=end_with_parent
        ) as process,
        _forwarding(process) as stopped,
    ):
        code = process.wait()
    if stopped:
        raise SystemExit(STOPPED)
    if code:
        failure = read_failure(job)
        if failure and failure.is_refusal:
            raise InputError(failure.message)
        why = failure.message if failure else "the first traceback above tells why"
        raise RanksFailed(
            f"{module} ended with code {code}: {why}. What was saved is kept: the same command "
            "goes on from there"
        )


@contextmanager
def _only_ranks(folder: Path) -> Iterator[int]:
    """Wait for ranks that outlive a killed step: they may still be saving their state.

    The lock is torchrun's too, which inherits the open file, so that it ends with the last of both.
    """
    with (folder / LOCK_NAME).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for the processes of a killed run to save their state and end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def _forwarding(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Hand SIGTERM on to a process; the list is not empty once it came."""
    stopped: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
