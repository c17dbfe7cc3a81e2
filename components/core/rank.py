"""A rank as a program that torchrun starts: it ends when torchrun's agent dies.

torchrun --nproc-per-node 2 -m components.core.rank pixclip.training.run --job job.json

torchrun puts ranks into sessions of their own, so that no signal reaches them once it is killed.
"""

import fcntl
import importlib
import os
import sys
from pathlib import Path

from components.core.process import end_with_parent

LOCK_NAME = ".ranks.lock"  # beside the job: shared by all that belong to a run of it
ORPHANAGE = 1  # the process that inherits orphans


def main() -> None:
    """Be a rank of a module, whose `main` reads the arguments that are left."""
    end_with_parent()
    if os.getppid() == ORPHANAGE:
        sys.exit("the process that started this rank has died")
    _, module, option, job = sys.argv
    with Path(job).with_name(LOCK_NAME).open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        sys.argv = [module, option, job]
        importlib.import_module(module).main()


if __name__ == "__main__":
    main()
