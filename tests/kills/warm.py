"""Start steps in fresh processes that need not import everything again, and die where asked.

Reads one JSON object a line (`argv`, `folder`, `environment`, `log`, `die_at`) and answers with the
process's id; each is the leader of a process group of its own. A second line tells how it ended:
its exit code, and how often it was about to change a file below its folder. With `die_at`, the
whole group is killed right before that change: the same moment every time.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from typing import Any

SLOW_TO_IMPORT = (
    "components.cli", "data_contracts.engine.check", "great_expectations", "imagehash", "torch",
    "transformers", "cv2", "jinja2", "mlflow", "mlflow.store.tracking.sqlalchemy_store",
    "components.registry.model_folder", "components.registry.promotions", "pixclip.checkpoint",
    "pixclip.evaluation.compare", "components.data.describe.pipeline", "boto3",
)  # fmt: skip
PATH_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Changes:
    """Counts what is about to change below a folder, as Python's audit events tell it."""

    def __init__(self, folder: str, die_at: int) -> None:
        self.folder, self.die_at, self.number = folder, die_at, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook: called before each change."""
        if not self._is_change(event, arguments):
            return
        self.number += 1
        if self.number == self.die_at:
            os.killpg(0, signal.SIGKILL)

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "subprocess.Popen":
            return True
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & WRITING):
                return False
        elif event in PATH_EVENTS or event == "sqlite3.connect":
            path = arguments[0]
        else:
            return False
        with contextlib.suppress(TypeError, ValueError):
            # A relative one is below the folder: it is the working folder.
            return not os.path.isabs(name := os.fsdecode(path)) or name.startswith(self.folder)
        return False


def run(request: dict[str, Any], answers: int) -> None:
    """Be the step: in a group of its own, with its words in a log."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    changes = Changes(request["folder"], request["die_at"])
    sys.addaudithook(changes)
    sys.argv = ["pixclip", *request["argv"]]
    from components.cli import main

    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os.write(answers, f"{changes.number}".encode())
    os._exit(code if isinstance(code, int) else 1)


def serve() -> None:
    """Answer requests until the input ends."""
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")  # the steps' words must not get here
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            out.close()
            run(json.loads(line), writing)
        os.close(writing)
        print(child, file=out, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.set_blocking(reading, False)
        try:
            number = int(os.read(reading, 20) or b"0")
        except BlockingIOError:  # a child of the child lives and holds the pipe
            number = 0
        os.close(reading)
        print(json.dumps({"code": code, "num_changes": number}), file=out, flush=True)


if __name__ == "__main__":
    serve()
