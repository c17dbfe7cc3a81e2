"""Pointers: what Kubeflow carries from task to task while the data stay in the state folder.

Kubeflow's launcher downloads every input of a task and uploads every output, one object after
another. An artifact that is a folder with `pointer.json` (where the data are, a digest of what the
receipt says of them, their bytes) and the pages that people open travels in no time; the next task
follows it before its step runs.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from components.core.digests import num_bytes_of, sha256_text
from components.core.errors import InputError
from components.core.files import write_whole
from components.core.receipts import Receipt, read_receipt

POINTER_NAME = "pointer.json"
PAGE_ENDINGS = (".html", ".css", ".md", ".csv")
MAX_PAGES_BYTES = 300_000  # of one artifact: they travel to every task that reads it
Name = Annotated[str, StringConstraints(pattern=r"^\w+$")]  # of a step or an artifact, never a path


class Pointer(BaseModel):
    """Where an artifact is, and which one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str  # file:///state/<step>/<digest>/<artifact>
    step: Name  # which made it
    receipt_in: Name  # the artifact beside it, or itself, whose folder holds the receipt
    digest: (
        str  # sha256 of the work's fingerprint and of the artifact's files as the receipt has it
    )
    num_bytes: int


def point(target: Path, receipt: Receipt, name: str, folder: Path) -> Pointer:
    """Make `folder` a pointer to the published artifact `name` at `target`, with its pages."""
    pointer = Pointer(
        uri=target.absolute().as_uri(),
        step=receipt.step,
        receipt_in=receipt.artifact,
        digest=_digest(receipt, name),
        num_bytes=num_bytes_of(target),
    )
    folder.mkdir(parents=True)
    for page in _pages(target):
        copy = folder / (page.relative_to(target) if target.is_dir() else page.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, copy)
    write_whole(folder / POINTER_NAME, pointer.model_dump_json(indent=1) + "\n")
    return pointer


def _pages(target: Path) -> Iterator[Path]:
    """What people open of an artifact, the smallest first, as far as it has room."""
    files = sorted(target.rglob("*")) if target.is_dir() else [target]
    pages = [path for path in files if path.is_file() and path.suffix in PAGE_ENDINGS]
    left = MAX_PAGES_BYTES
    for page in sorted(pages, key=lambda path: path.stat().st_size):
        left -= page.stat().st_size
        if left < 0:
            return
        yield page


def read_pointer(folder: Path) -> Pointer | None:
    """The pointer in a folder; None if the folder is the artifact itself.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / POINTER_NAME
    if not path.is_file():
        return None
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is no pointer of this release ({error.error_count()} faults); run the step "
            "that made it again, without Kubeflow's cache"
        ) from None


def follow(name: str, path: Path, state: Path | None) -> Path:
    """Where the files of the input `name` are: at its pointer's target, or at `path` itself.

    Whoever can write to the orchestrator's store can write a pointer: it leads nowhere but below
    the state folder.

    Raises:
        InputError: the target is gone or is another one; names the step to run again. Or it is not
            below `state`.
    """
    pointer = read_pointer(path)
    if pointer is None:
        return path
    again = f"run {pointer.step} again: start the pipeline once without Kubeflow's cache"
    parts = urlsplit(pointer.uri)
    if parts.scheme != "file":
        raise InputError(f"input {name}: {pointer.uri} cannot be followed here; {again}")
    target = Path(url2pathname(parts.path))
    if state is None or not target.resolve().is_relative_to(state.resolve()):
        raise InputError(
            f"input {name}: {target} is not below the state folder ({state or 'none is named'}); "
            f"give this task the state volume that step {pointer.step} had, under the same path"
        )
    receipt = read_receipt(target.parent / pointer.receipt_in)
    if receipt is None or not target.exists():
        raise InputError(
            f"input {name}: {target}, which step {pointer.step} made, is gone (is the state volume "
            f"the one of that run?); {again}"
        )
    if _digest(receipt, target.name) != pointer.digest:
        raise InputError(
            f"input {name}: {target} is no longer what step {pointer.step} had made; {again}"
        )
    with contextlib.suppress(OSError):  # mounted to be read only
        os.utime(target.parent)
    return target


def _digest(receipt: Receipt, name: str) -> str:
    files = {
        file: digest for file, digest in receipt.files.items() if file.partition("/")[0] == name
    }
    return sha256_text(json.dumps([receipt.fingerprint, files], sort_keys=True))
