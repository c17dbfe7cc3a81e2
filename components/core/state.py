"""The state folder, which outlives the tasks of a pipeline: what a killed one did is found again.

An orchestrator gives every attempt of a task a fresh place for its outputs. With the variable
`PIXCLIP_STATE_FOLDER` a step works below that folder instead (a persistent volume, a local folder),
in a place that its inputs and settings decide. A retry goes on where the last attempt was killed,
and equal work is not done twice, in whatever run. The outputs are then linked or copied to where
the orchestrator wants them; or pointers to them are put there, and the data stay.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from components.core.drafts import remove
from components.core.errors import InputError
from components.core.files import link_or_copy
from components.core.pointers import point
from components.core.receipts import Receipt
from components.core.run import run_digest, run_step
from components.core.settings import parse_settings
from components.core.step import Step
from components.steps import STEPS

VARIABLE = "PIXCLIP_STATE_FOLDER"
DAY_S = 24 * 3600
HANDED_OUT = ".pointed-to"  # in a place: its outputs are known elsewhere by pointers


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
    *,
    points: bool = False,
) -> Receipt:
    """`run_step`, in the state folder if there is one and the outputs depend on nothing else.

    A second run of equal work waits for the first. `points`: what is put at `outputs` are pointers
    into the state folder instead of the data.

    Raises:
        PipelineError: those of `run_step`; never BusyError in the state folder.
        InputError: nothing can be written in the state folder.
    """
    if state is not None:
        checked = parse_settings(step, settings)
        settings = {**settings, **(step.pin(checked) if step.pin else {})}
    if state is None or not step.is_pure(parse_settings(step, settings)):
        return run_step(step, inputs, outputs, settings)
    place = state / step.name / run_digest(step, inputs, settings)[:16]
    _make_place(place)
    kept = {name: place / name for name in outputs}
    receipt = run_step(step, inputs, kept, settings, waits=True)
    os.utime(place)
    for name, path in outputs.items():
        remove(path)
        if points:
            (place / HANDED_OUT).touch()
            point(kept[name], receipt, name, path)
        else:
            _hand_over(kept[name], path)
    return receipt


def _make_place(place: Path) -> None:
    """Make a folder in the state folder, or note that it is used: `forget_old` goes by that.

    Raises:
        InputError: this user may not write there.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        os.utime(place)
    except OSError as error:
        raise InputError(
            f"cannot write the state folder: {error.filename or place}: {error.strerror}; this "
            f"process is user {os.getuid()}, group {os.getgid()}. Give the volume to that user "
            "once (docs/cluster.md: the Job that prepares the claim)"
        ) from None


def forget_old(state: Path, keep_days: float, keep_pointed_days: float | None = None) -> list[Path]:
    """Remove what no run has used or written for some days; gives the removed folders.

    What pointers lead to stays for `keep_pointed_days`, for ever if that is None: an orchestrator's
    cache hands those pointers out again without running anything. Only places of steps are looked
    at; whatever else lies in the state folder is somebody's.
    """
    now = time.time()
    old = []
    for place in (path for step in STEPS for path in sorted(state.glob(f"{step}/*"))):
        days = keep_pointed_days if (place / HANDED_OUT).exists() else keep_days
        if days is not None and _last_change(place) < now - days * DAY_S:
            old.append(place)
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
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link_or_copy)
    else:
        link_or_copy(str(source), str(target))
