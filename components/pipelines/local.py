"""Run a compiled pipeline on this machine through `kfp.local`, in processes.

Started as a program of its own (`python -m components.pipelines.local`), so that what the steps and
kfp print can be read, kept and shown in short.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from components.kernel.errors import PipelineError
from components.kernel.receipts import read_receipt
from components.kernel.state import VARIABLE as STATE_VARIABLE
from components.pipelines.digest import PipelineDigest
from components.runners.home import project_home

YAML_NAME, LOG_NAME = "pipeline.yaml", "log.txt"
STATE_FOLDER, CACHE_FOLDER = "state", "cache"


class PipelineFailedError(PipelineError):
    """A task of the pipeline failed; the log says why."""


@dataclass(frozen=True)
class LocalRun:
    """A finished run: its folder, and where each artifact lies."""

    folder: Path
    artifacts: dict[str, Path]


def run_local(text: str, root: Path, say: Callable[[str], None]) -> LocalRun:
    """Run a compiled pipeline below `root`; equal work of earlier runs there is not repeated.

    Raises:
        PipelineFailedError: names the failed task and the log.
    """
    folder = root / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    (folder / YAML_NAME).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", __name__, str(folder / YAML_NAME)]
    environment = {
        **os.environ,
        STATE_VARIABLE: str(root / STATE_FOLDER),
        "PIXCLIP_HOME": str(project_home()),
        "PYTHONUTF8": "1",
    }
    digest = PipelineDigest(say)
    with (
        (folder / LOG_NAME).open("w", buffering=1, encoding="utf-8") as log,
        subprocess.Popen(
            command,
            cwd=project_home(),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            digest.add(line.rstrip())
    if process.returncode:
        raise PipelineFailedError(
            f"the pipeline failed{digest.failure}; whole log: {folder / LOG_NAME}. "
            "A rerun repeats nothing that was done"
        )
    return LocalRun(folder, find_artifacts(folder))


def find_artifacts(folder: Path) -> dict[str, Path]:
    """Artifact -> its folder, the last one made if several tasks made one of that name."""
    receipts = sorted(folder.glob("*/*/*/_receipt.json"), key=lambda path: path.stat().st_mtime)
    found = {}
    for path in receipts:
        if read_receipt(path.parent):
            found[path.parent.name] = path.parent
    return found


@click.command()
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
def main(pipeline: Path) -> None:
    """Run a compiled pipeline; its artifacts go beside the file."""
    from kfp import components, local

    from components.kernel.kubeflow import stop_with_the_runner
    from components.runners.local import subprocess_runner

    stop_with_the_runner()
    # Of images without "python" in their names, and of resources, which a process does not get.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    folder = pipeline.parent
    local.init(
        runner=subprocess_runner(),
        pipeline_root=str(folder),
        workspace_root=str(folder / "workspace"),  # which kfp removes
        enable_caching=True,
        cache_root=str(folder.parent / CACHE_FOLDER),
    )
    try:
        components.load_component_from_file(str(pipeline))()
    except RuntimeError as error:  # kfp's, which names the task
        sys.exit(str(error))


if __name__ == "__main__":
    main()
