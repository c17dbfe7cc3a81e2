"""A process that has imported what steps need, and forks a process for each of them.

A step with little to do spends its time on imports: of pyarrow, torch, MLflow. A runner
that runs many steps starts one such process for its run; it imports a library when the first step
needs it, and every step is forked from it: still a process of its own, whose crash hurts nobody
else. It ends when nobody is left to ask it, or with the process that started it.

Whoever holds the socket may ask, also a child of the runner, which finds it in `VARIABLE`. A
request is one packet with three open files: the job as JSON, where the step's output goes, and a
pipe for its exit code. The pipe ends with the step, however the step ends.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from components.core.process import end_with_parent, say_forked_clean
from components.steps import STEPS

VARIABLE = "PIXCLIP_WARM"
KILLED = 128 + signal.SIGKILL
# What takes long to import. None of it starts a thread when it is imported: OpenMP's begin with
# torch's first computation. Contracts are checked around most steps; the others need what is named.
OF_EVERY_STEP = ("kfp.dsl.executor_main", "components.core.kubeflow")
OF_CONTRACTS = ("data_contracts.engine.check", "pandas")  # pyarrow imports pandas by itself
PICTURES = ("cv2", "PIL.Image", "pycocotools.mask")
MODELS = ("torch", "transformers")
REGISTRY = ("mlflow",)
# Ranks on GPUs are programs of their own: CUDA does not outlive a fork.
HAS_GPUS = Path("/dev/nvidiactl").exists()
RANKS: tuple[str, ...] = () if HAS_GPUS else ("torch.distributed.launcher.api", "deepspeed")
BY_STEP = {
    "check": ("great_expectations", "jinja2"),
    "ingest": ("imagehash", "aiohttp"),
    "detect_parts": PICTURES,  # most runs have nothing to detect, and need no torch
    "segment": PICTURES,
    "describe": PICTURES,
    "describe_parts": PICTURES,
    "make_hard_negatives": PICTURES,
    "pack": PICTURES,
    "adapt_text": (*MODELS, *REGISTRY, *RANKS, "peft", "components.training.adapt_text.rank"),
    "embed_text": MODELS,
    "init_model": MODELS,
    "train": (*REGISTRY, *RANKS, "pixclip.training.run"),
    "train_parts": (*REGISTRY, *RANKS, "pixclip.training.run_parts"),
    "evaluate": MODELS,
    "evaluate_parts": MODELS,
    "register": REGISTRY,
    "promote": REGISTRY,
    "rollback": REGISTRY,
}


@dataclass(frozen=True)
class Job:
    """A module to run as a program, for a step, in a folder and an environment."""

    step: str
    module: str
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]


class Forked:
    """The process of a job: what it prints, and its exit code."""

    def __init__(self, output: IO[str], answer: int) -> None:
        self.output, self._answer = output, answer

    def wait(self) -> int:
        """The exit code; that of a killed process if it ended without one."""
        code = os.read(self._answer, 1)
        return code[0] if code else KILLED


@contextlib.contextmanager
def warm_process(environment: Mapping[str, str]) -> Iterator[int]:
    """Start a warm process for as long as the context lasts; gives the number of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            # Without the compiler of pipelines, as in a component's own process.
            env={**environment, "_KFP_RUNTIME": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            preexec_fn=end_with_parent,
        ) as process,
    ):
        theirs.close()
        try:
            yield ours.fileno()
        finally:
            process.terminate()


@contextlib.contextmanager
def forked(job: Job) -> Iterator[Forked | None]:
    """Let the warm process of this run fork a job; None if the run has none."""
    ours = _socket_of_run()
    if ours is None:
        yield None
        return
    (read_output, output), (read_answer, answer) = os.pipe(), os.pipe()
    text = os.memfd_create("job")
    with (
        ours,
        open(read_output, encoding="utf-8", errors="replace") as lines,
        open(read_answer, "rb"),
    ):
        os.write(text, json.dumps(asdict(job)).encode())
        try:
            socket.send_fds(ours, [b"j"], [text, output, answer])
        except OSError:  # it has been killed
            is_asked = False
        else:
            is_asked = True
        finally:
            for descriptor in (text, output, answer):
                os.close(descriptor)
        yield Forked(lines, read_answer) if is_asked else None


def _socket_of_run() -> socket.socket | None:
    """The socket that this process inherited."""
    try:
        descriptor = int(os.environ.get(VARIABLE, ""))
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return socket.socket(fileno=os.dup(descriptor))
    except (ValueError, OSError):
        pass
    return None


def serve(requests: socket.socket) -> None:
    """Fork a process for every request, until nobody is left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the steps get it too
    own = os.getpid()
    prepare((*OF_EVERY_STEP, *OF_CONTRACTS))  # while the runner makes itself ready
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 3)
        if not message:
            return
        text, output, answer = descriptors
        job = _read(text)
        prepare(needed_by(job.step))
        _forget_ended()
        gc.freeze()  # what a step collects is not what was here before
        if not os.fork():
            requests.close()
            os.set_inheritable(answer, False)
            _be(job, output, answer, own)
        os.close(output)
        os.close(answer)


def prepare(names: Iterable[str]) -> None:
    """Import modules, as far as that is not done."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # the step's own import tells it
                importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would lack the other threads"


def needed_by(step: str) -> tuple[str, ...]:
    """The modules of `BY_STEP`, and the step itself."""
    own = (STEPS[step],) if step in STEPS else ()  # not those of a component that is no step
    return (*BY_STEP.get(step, ()), *own)


def _read(text: int) -> Job:
    os.lseek(text, 0, os.SEEK_SET)
    with open(text, encoding="utf-8") as file:
        return Job(**json.load(file))


def _forget_ended() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _be(job: Job, output: int, answer: int, parent: int) -> None:
    """Run a job in this new process, and end."""
    end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    if not HAS_GPUS:
        say_forked_clean()
    os.environ.clear()
    os.environ.update(job.environment)
    os.chdir(job.folder)
    sys.argv = [job.module, *job.arguments]
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    code = _exit_code(job.module)
    os.write(answer, bytes([code]))
    sys.exit(code)


def _exit_code(module: str) -> int:
    """Run a module as a program; what ends it is told as Python tells it."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code: Any = end.code
        if code is None or isinstance(code, int):
            return (code or 0) & 255
        print(code, file=sys.stderr)  # noqa: T201  # as Python does
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
