"""Drafts of outputs, their publication by rename, and which places are safe for it.

A step writes `.<output>.draft-<digest>` beside each output. Publishing writes a journal first: a
run that is killed between two renames is finished by the next one instead of being repeated. A
draft of other settings or inputs is not thrown away if its step says that it is worth something
(`Work`): it goes on in the new draft, or it stays and is named.
"""

import fcntl
import glob
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.core.digests import RECEIPT_NAME, num_bytes_of
from components.core.errors import BusyError, InputError
from components.core.files import write_whole
from components.core.receipts import Receipt, is_own_file, note_owner, read_receipt
from components.core.step import ARTIFACTS, Step, Work, alike
from components.core.tables import WORK_FOLDER

log = logging.getLogger(__name__)

WAIT_POLL_S = 2.0
CHECKED = "-checked"  # what a contract check adds to the name of its copy of a draft


def open_drafts(step: Step, outputs: Mapping[str, Path], digest: str) -> dict[str, Path]:
    """Draft paths beside the outputs; what runs with other inputs or settings left is dealt with.

    Copies that the contract check of a killed run made go: drafts stay whole beside them.
    """
    drafts = {}
    for name, path in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        drafts[name] = _draft(path, digest)
    if step.work is Work.PORTABLE:
        _take_work_along(outputs[step.outputs[0]], drafts[step.outputs[0]])
    for name, path in outputs.items():
        _remove_drafts(path, step.work, keep=drafts[name])
    return drafts


def _take_work_along(path: Path, draft: Path) -> None:
    """Move the newest unfinished work of other settings or inputs into this draft."""
    others = [other for other in _drafts(path) if other != draft and _has_work(other)]
    if not others or _has_work(draft):
        return
    newest = max(others, key=lambda other: (other / WORK_FOLDER).stat().st_mtime_ns)
    draft.mkdir(exist_ok=True)
    log.info("what a run with other settings or inputs had done for %s is used where it fits", path)
    (newest / WORK_FOLDER).rename(draft / WORK_FOLDER)


def discard(step: Step, drafts: Mapping[str, Path]) -> None:
    """Remove drafts whose content is bad, but not unfinished work that is worth something."""
    for draft in drafts.values():
        if step.work is Work.CHEAP or not _has_work(draft):
            remove(draft)
            continue
        for path in draft.iterdir():
            if path.name != WORK_FOLDER:
                remove(path)


def publish(
    step: Step, ready: Mapping[str, Path], outputs: Mapping[str, Path], receipt: Receipt
) -> None:
    """Put what is ready in the outputs' places; the first folder takes the receipt.

    From the moment the journal is written the run counts as done, also if it is killed.
    """
    first = step.outputs[0]
    (ready[first] / RECEIPT_NAME).write_text(receipt.to_json(), encoding="utf-8")
    plan = {"fingerprint": receipt.fingerprint, "ready": {n: p.name for n, p in ready.items()}}
    write_whole(_journal_path(outputs[first]), json.dumps(plan, sort_keys=True))
    _rename_all(step, ready, outputs, receipt)


def is_publishing(step: Step, outputs: Mapping[str, Path]) -> bool:
    """Whether a run was killed between its first rename and the end of publishing."""
    return _journal_path(outputs[step.outputs[0]]).exists()


def finish_publishing(step: Step, outputs: Mapping[str, Path]) -> Receipt | None:
    """Finish what a killed run had begun to publish; its receipt, None if there was none.

    That run was done, whatever the settings of now: its outputs appear whole, and a run with
    other settings replaces them when it is done itself.
    """
    first = step.outputs[0]
    journal = _journal_path(outputs[first])
    try:
        ready, receipt = _read_journal(step, outputs, journal.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s is damaged: what was being published is made again", journal)
        journal.unlink()
        return None
    _rename_all(step, ready, outputs, receipt)
    return receipt


def _read_journal(
    step: Step, outputs: Mapping[str, Path], content: bytes
) -> tuple[dict[str, Path], Receipt]:
    """What was being published, and its receipt, which the journal and the drafts' names must fit.

    Raises:
        ValueError, KeyError, TypeError: the journal is damaged.
    """
    plan, first = json.loads(content), step.outputs[0]
    ready: dict[str, Path] = {}
    for name, path in outputs.items():
        draft = _draft(path, plan["fingerprint"])
        ready[name] = path.with_name(plan["ready"][name])
        if ready[name].name.removesuffix(CHECKED) != draft.name:
            raise ValueError(f"{ready[name]} is not {draft}")
    receipt = read_receipt(ready[first] if ready[first].exists() else outputs[first])
    if receipt is None or receipt.fingerprint != plan["fingerprint"]:
        raise ValueError("it speaks of another run")
    return ready, receipt


def _rename_all(
    step: Step, ready: Mapping[str, Path], outputs: Mapping[str, Path], receipt: Receipt
) -> None:
    """Rename what is not renamed yet; the folder with the receipt goes last."""
    first = step.outputs[0]
    if ready[first].exists():
        _retire(outputs[first])  # until the last rename this run counts as unfinished
    for name in (*(name for name in ready if name != first), first):
        if ready[name].exists():
            shutil.rmtree(ready[name] / WORK_FOLDER, ignore_errors=True)
            _let_others_read(ready[name])
            _retire(outputs[name])
            if name in receipt.files:
                note_owner(outputs[name], outputs[first], receipt.files[name])
            ready[name].rename(outputs[name])
    for name, path in outputs.items():
        remove(ready[name].with_name(ready[name].name.removesuffix(CHECKED)))  # its original
        remove(_retired_path(path))
        _remove_drafts(path, step.work)
    _journal_path(outputs[first]).unlink()


def _retire(path: Path) -> None:
    """Take away an older output at once: removing a large folder file by file takes time."""
    retired = _retired_path(path)
    remove(retired)
    if path.exists():
        path.rename(retired)


def _retired_path(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}retired")


def _let_others_read(path: Path) -> None:
    """Files that safetensors writes are their owner's alone; a container may be somebody else.

    What the umask keeps from others stays so.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    for file in (path, *path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | 0o444 & ~umask)


def _draft(path: Path, digest: str) -> Path:
    return path.with_name(f"{_prefix(path)}{digest[:16]}{path.suffix}")


def _prefix(path: Path) -> str:
    return f".{path.name}.draft-"


def _journal_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.publishing.json")


def _drafts(path: Path) -> list[Path]:
    """What runs have left beside an output: drafts, and copies that the contract check made."""
    return sorted(path.parent.glob(f"{glob.escape(_prefix(path))}*"))


def _has_work(draft: Path) -> bool:
    return (draft / WORK_FOLDER).is_dir() and any((draft / WORK_FOLDER).iterdir())


def _remove_drafts(path: Path, work: Work, keep: Path | None = None) -> None:
    """Remove what other runs left, but never unfinished work that is worth something."""
    for draft in _drafts(path):
        if draft == keep:
            continue
        if work is not Work.CHEAP and _has_work(draft):
            log.warning(
                "%s holds unfinished work of other settings or inputs (%.1f MB): it is kept, and "
                "goes on with those; if it is not wanted, remove that folder",
                draft,
                num_bytes_of(draft) / 1e6,
            )
        else:
            remove(draft)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_safe_places(
    step: Step, inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> None:
    """Refuse outputs that would overwrite an input, another output, or a folder that is not ours.

    Raises:
        InputError: says which path is in the way.
    """
    real = {name: outputs[name].resolve() for name in step.outputs}
    others = {f"input {name}": inputs[name].resolve() for name in step.inputs}
    for name, path in real.items():
        for other, taken in others.items():
            if path.is_relative_to(taken) or taken.is_relative_to(path):
                raise InputError(
                    f"step {step.name}: output {name} at {path} overlaps with {other} at {taken}; "
                    "name another path"
                )
        others[f"output {name}"] = path
        is_folder = path.is_dir() or name == step.outputs[0]  # which holds the receipt
        if is_folder and path.exists() and not _is_replaceable(name, path):
            raise InputError(
                f"step {step.name}: output {name}: {path} is there already and holds something "
                "else; name another path or remove it"
            )
        file, first = outputs[name], outputs[step.outputs[0]]
        if not is_folder and os.path.lexists(file) and not is_own_file(name, file, first):
            raise InputError(
                f"step {step.name}: output {name}: {file} is there already and was not published "
                f"with {first}: it is another run's or somebody's file, or was changed since; name "
                "another path, or move it away"
            )


def _is_replaceable(name: str, path: Path) -> bool:
    """Whether a folder is empty, or was published as this artifact or one alike."""
    if not path.is_dir():
        return False
    receipt, text = read_receipt(path), path / RECEIPT_NAME
    if receipt:
        return any(file.partition("/")[0] in alike(name) for file in receipt.files)
    if not text.exists():
        return not any(path.iterdir())
    # Damaged, or of an older release: one of ours too, unless it names another artifact's files.
    content = text.read_bytes()
    named = [artifact for artifact in ARTIFACTS if f'"{artifact}/'.encode() in content]
    return not named or not alike(name).isdisjoint(named)


@contextmanager
def only_run(output: Path, *, waits: bool = False) -> Iterator[None]:
    """Keep a second run away from the same output, also if this one is killed and started again.

    `waits`: wait until no other run writes there, however long that takes.

    Raises:
        BusyError: another run writes there now.
        InputError: nothing can be written there.
    """
    if not output.name:
        raise InputError(f"{output} cannot be replaced; name a folder that is not there yet")
    path = output.with_name(f".{output.name}.lock")
    file = _locked(path, output)
    if file is None and waits:
        log.warning("another run is writing %s: waiting for it to end", output)
    while file is None:
        if not waits:
            raise BusyError(f"another run is writing {output} at this moment; wait for it to end")
        time.sleep(WAIT_POLL_S)
        file = _locked(path, output)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: nobody else's is removed
        os.close(file)


def _locked(path: Path, output: Path) -> int | None:
    """The open lock file, or None if another run holds it or has just removed it.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.filename}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None
