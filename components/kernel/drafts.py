"""Drafts of outputs, and their publication by rename.

A step writes `.<output>.draft-<digest>` beside each output. Publishing writes a journal first: a
run that is killed between two renames is finished by the next one instead of being repeated.
"""

import glob
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from components.kernel.files import write_whole
from components.kernel.receipts import RECEIPT_NAME, Receipt, read_receipt
from components.kernel.tables import WORK_FOLDER


def open_drafts(outputs: Mapping[str, Path], digest: str) -> dict[str, Path]:
    """Draft paths beside the outputs; what runs with other inputs or settings left is removed.

    Copies that the contract check of a killed run made go too: drafts stay whole beside them.
    """
    drafts = {}
    for name, path in outputs.items():
        draft = path.with_name(f"{_prefix(path)}{digest[:16]}{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_drafts(path, keep=draft)
        drafts[name] = draft
    return drafts


def publish(
    ready: Mapping[str, Path], outputs: Mapping[str, Path], first: str, receipt: Receipt
) -> None:
    """Put what is ready in the outputs' places; the folder `first` takes the receipt.

    From the moment the journal is written the run counts as done, also if it is killed.
    """
    (ready[first] / RECEIPT_NAME).write_text(receipt.to_json(), encoding="utf-8")
    plan = {"fingerprint": receipt.fingerprint, "ready": {n: p.name for n, p in ready.items()}}
    write_whole(_journal_path(outputs[first]), json.dumps(plan, sort_keys=True))
    _rename_all(ready, outputs, first)


def finish_publishing(outputs: Mapping[str, Path], first: str, digest: str) -> Receipt | None:
    """Finish what a killed run had begun to publish; its receipt if it is this very run's."""
    journal = _journal_path(outputs[first])
    try:
        plan = json.loads(journal.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if plan["fingerprint"] != digest or plan["ready"].keys() != outputs.keys():
        journal.unlink()  # other settings by now: that run's work is not wanted
        return None
    ready = {name: outputs[name].with_name(plan["ready"][name]) for name in outputs}
    _rename_all(ready, outputs, first)
    return read_receipt(outputs[first])


def _rename_all(ready: Mapping[str, Path], outputs: Mapping[str, Path], first: str) -> None:
    """Rename what is not renamed yet; the folder with the receipt goes last."""
    if ready[first].exists():
        _retire(outputs[first])  # until the last rename this run counts as unfinished
    for name in (*(name for name in ready if name != first), first):
        if ready[name].exists():
            shutil.rmtree(ready[name] / WORK_FOLDER, ignore_errors=True)
            _let_others_read(ready[name])
            _retire(outputs[name])
            ready[name].rename(outputs[name])
    for path in outputs.values():
        _remove_drafts(path)
    _journal_path(outputs[first]).unlink()


def _retire(path: Path) -> None:
    """Take away an older output at once: removing a large folder file by file takes time."""
    retired = path.with_name(f"{_prefix(path)}retired")
    remove(retired)
    if path.exists():
        path.rename(retired)


def _let_others_read(path: Path) -> None:
    """Files that safetensors writes are their owner's alone; a container may be somebody else."""
    for file in (path, *path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | 0o444)


def _prefix(path: Path) -> str:
    return f".{path.name}.draft-"


def _journal_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.publishing.json")


def _remove_drafts(path: Path, keep: Path | None = None) -> None:
    for draft in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        if draft != keep:
            remove(draft)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
