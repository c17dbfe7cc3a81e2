"""Whose a published file is: a quarantine, a ledger, curves.

A folder holds its receipt. A single file has a hidden note beside it, which names the folder that
it was published with (as a relative path) and its digest, so that the file is known again when that
folder was lost, and is never taken for another run's.
"""

import json
import os
from pathlib import Path

from components.kernel.digests import NOTE_PREFIX, RECEIPT_NAME, file_sha256
from components.kernel.files import write_whole
from components.kernel.receipts import Receipt, read_receipt

WITH, SHA256 = "published_with", "sha256"


def note_owner(path: Path, first: Path, digest: str) -> None:
    """Write that a file of this digest was published together with the folder `first`."""
    content = {WITH: os.path.relpath(first, path.parent), SHA256: digest}
    write_whole(_note_path(path), json.dumps(content, sort_keys=True) + "\n")


def noted_files(path: Path) -> dict[Path, tuple[str, str]]:
    """The file at a path, or those right in a folder, that have a note: sha256 and who wrote them.

    Of a step whose folder is not there only the name of that folder is known.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found: dict[Path, tuple[str, str]] = {}
    for file in (file for file in files if file.is_file()):
        note = _read_note(file)
        first, digest = note.get(WITH), note.get(SHA256)
        if isinstance(first, str) and isinstance(digest, str):
            receipt = read_receipt(file.parent / first)
            if receipt and digest not in receipt.files.values():
                continue  # the note is damaged, or of another time
            maker = f"step {receipt.step}" if receipt else f"the step that wrote {first}"
            found[file] = (digest, maker)
    return found


def is_own_file(name: str, path: Path, first: Path) -> bool:
    """Whether a file is still what was published as the artifact `name` together with `first`."""
    if not path.is_file():
        return False
    receipt, digest = read_receipt(first), file_sha256(path)
    if receipt and receipt.files.get(name) == digest:
        return True
    note = _read_note(path)
    if note:
        return note == {WITH: os.path.relpath(first, path.parent), SHA256: digest}
    return _was_published_before_notes(receipt, first)


def _was_published_before_notes(receipt: Receipt | None, first: Path) -> bool:
    """Whether the folder has a receipt that cannot be read: damaged, or of an older release."""
    return receipt is None and (first / RECEIPT_NAME).exists()


def _read_note(path: Path) -> dict[str, str]:
    try:
        note = json.loads(_note_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _note_path(path: Path) -> Path:
    return path.with_name(f"{NOTE_PREFIX}{path.name}.note")
