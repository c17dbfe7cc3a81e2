"""A folder that outlives the tasks of a pipeline: what a killed task had done is found again.

An orchestrator gives every attempt of a task a fresh place for its outputs. With the variable
`PIXCLIP_STATE_FOLDER` a step works below that folder instead (a persistent volume, a local
folder), in a place that its inputs and settings decide. A retry goes on where the last attempt was
killed, and equal work is not done twice, in whatever run. The outputs are then linked, or copied
across file systems, to where the orchestrator wants them.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from components.kernel.drafts import remove
from components.kernel.files import link_or_copy
from components.kernel.receipts import Receipt
from components.kernel.run import run_digest, run_step
from components.kernel.step import Step

VARIABLE = "PIXCLIP_STATE_FOLDER"
DAY_S = 24 * 3600


def state_folder() -> Path | None:
    """The folder that outlives this task, if there is one."""
    folder = os.environ.get(VARIABLE, "")
    return Path(folder) if folder else None


def run_kept(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: Mapping[str, object],
    state: Path | None,
) -> Receipt:
    """`run_step`, in the state folder if there is one and the step is pure.

    Raises:
        PipelineError: those of `run_step`.
    """
    if state is None or not step.is_pure:
        return run_step(step, inputs, outputs, settings)
    place = state / step.name / run_digest(step, inputs, settings)[:16]
    place.mkdir(parents=True, exist_ok=True)
    os.utime(place)  # `forget_old` goes by the time of the last use
    kept = {name: place / name for name in outputs}
    receipt = run_step(step, inputs, kept, settings)
    os.utime(place)
    for name, path in outputs.items():
        _hand_over(kept[name], path)
    return receipt


def forget_old(state: Path, keep_days: float) -> list[Path]:
    """Remove what no run has used or written for some days; gives the removed folders."""
    limit = time.time() - keep_days * DAY_S
    old = [path for path in sorted(state.glob("*/*")) if _last_change(path) < limit]
    for path in old:
        remove(path)
    return old


def _last_change(folder: Path) -> float:
    """Of the folder or of anything in it: a training writes deep below it, for weeks perhaps."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:  # somebody is at work in it
        return time.time()


def _hand_over(source: Path, target: Path) -> None:
    remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link_or_copy)
    else:
        link_or_copy(str(source), str(target))
