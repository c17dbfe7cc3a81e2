"""Run a module on several ranks through torchrun, and end it in good order.

Where the environment says so (`PIXCLIP_TRAINJOB`), the ranks run on other nodes; see `nodes.py`.
Here the step's process only waits: SIGTERM goes on to the ranks, which save their state and stop.
If the step's process is killed, or torchrun's agent with it, the ranks get SIGTERM too, and the
next attempt waits until they are gone.

A step that was itself forked from a warm process forks torchrun's agent and its ranks, which have
torch and DeepSpeed from the beginning; else each of them is a program of its own (`rank.py`).
"""

import argparse
import fcntl
import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from components.core.errors import InputError, PipelineError, RanksFailed
from components.core.process import end_with_parent, is_forked_clean, num_cores, sharing_cores
from components.core.rank import LOCK_NAME
from components.core.trainjob import Ranks, job_place

log = logging.getLogger(__name__)

LOCAL_ADDRESS = "localhost"  # where ranks meet: without a network no name server knows the machine
SHUTDOWN_S = 120  # for the step that runs and the saving of the state, after SIGTERM
STOPPED = 128 + signal.SIGTERM  # exit code of a process that was asked to stop


def run_ranks(module: str, job: Path, *, num_ranks: int) -> None:
    """Run `python -m <module> --job <job>` on `num_ranks` processes, of this machine or of nodes.

    The module has a function `main`, which is all that it does as a program.

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
    num_threads = max(1, num_cores() // num_ranks)
    if is_forked_clean():
        code, is_stopped = _fork_torchrun(module, job, num_ranks, num_threads)
    else:
        code, is_stopped = _start_torchrun(module, job, num_ranks, num_threads, lock)
    if is_stopped:
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


def _start_torchrun(
    module: str, job: Path, num_ranks: int, num_threads: int, lock: int
) -> tuple[int, bool]:
    """The exit code, and whether this process was asked to stop."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--local-addr", LOCAL_ADDRESS),
        *("--shutdown-timeout", str(SHUTDOWN_S)),
        *("--nproc-per-node", str(num_ranks)),
        *("-m", "components.core.rank", module, "--job", str(job)),
    ]
    environment = {"OMP_NUM_THREADS": str(num_threads), **sharing_cores(os.environ)}
    with (
        subprocess.Popen(
            command, env=environment, pass_fds=[lock], preexec_fn=end_with_parent
        ) as process,
        _forwarding(process.terminate) as stopped,
    ):
        return process.wait(), bool(stopped)


def _fork_torchrun(module: str, job: Path, num_ranks: int, num_threads: int) -> tuple[int, bool]:
    """The same from forks of this process, which hold the lock as they hold all its files."""
    process = multiprocessing.get_context("fork").Process(
        target=_be_torchrun, args=(module, job, num_ranks, num_threads, os.getpid())
    )
    process.start()
    with _forwarding(process.terminate) as stopped:
        process.join()
    assert process.exitcode is not None
    return process.exitcode, bool(stopped)


def _be_torchrun(module: str, job: Path, num_ranks: int, num_threads: int, parent: int) -> None:
    end_with_parent()
    if os.getppid() != parent:
        sys.exit(STOPPED)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    importlib.import_module(module)  # once for all ranks
    # What `--standalone` stands for.
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr=LOCAL_ADDRESS,
        max_restarts=0,
        start_method="fork",
        shutdown_timeout=SHUTDOWN_S,
    )
    try:
        elastic_launch(config, _be_rank)(module, job, num_threads)
    except SignalException:
        sys.exit(STOPPED)
    except ChildFailedError as error:
        os.write(2, f"{error}\n".encode())  # whatever the runner has made of logging
        sys.exit(1)


def _be_rank(module: str, job: Path, num_threads: int) -> None:
    import torch

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the agent's handlers
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()
    logging.getLogger().handlers.clear()  # a rank says itself what it logs
    os.environ["OMP_NUM_THREADS"] = str(num_threads)  # for programs that it starts
    torch.set_num_threads(num_threads)  # OpenMP is loaded already, and has read its variables
    sys.argv = [module, "--job", str(job)]
    importlib.import_module(module).main()


@contextmanager
def _only_ranks(folder: Path) -> Iterator[int]:
    """Wait for ranks that outlive a killed step: they may still be saving their state.

    The lock is then shared with torchrun's agent, which inherits the open file, and with the ranks,
    so that it ends with the last of them.
    """
    with (folder / LOCK_NAME).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for the processes of a killed run to save their state and end")
            fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file.fileno()


@contextmanager
def _forwarding(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Hand SIGTERM on to a process; the list is not empty once it came."""
    stopped: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        stop()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
