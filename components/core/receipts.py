"""Receipts: what an artifact was made from, so that a rerun repeats nothing that is done.

Also here: whether published files still are what their receipts say, and whose a single file is.

Every published folder holds `_receipt.json`: step, settings, digests of the inputs, metrics, the
contract's result and the sha256 of every file. It holds no time and no path, so that equal work
gives equal bytes. What follows from an artifact depends on its files alone: another step's metrics
or settings, equal bytes given, change nothing.
"""

import json
import logging
import os
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.digests import (
    NOTE_PREFIX,
    RECEIPT_NAME,
    VARIABLE,
    digest_by_stats,
    digest_of_files,
    file_digests,
    file_sha256,
    is_too_large,
    limit_bytes,
    names_below,
    sha256_of_files,
    sha256_text,
)
from components.core.errors import InputError
from components.core.files import write_whole
from components.core.sources import source_digest
from components.core.step import Metrics, Step, StepSettings
from components.core.tables import WORK_FOLDER

log = logging.getLogger(__name__)

CHECKSUM = "checksum"


def fingerprint(step: Step, settings: StepSettings, inputs: dict[str, str]) -> str:
    """A digest of everything that decides a step's outputs: its code's version among it."""
    decisive = [step.name, step.version, step.fingerprinted_settings(settings), inputs]
    return sha256_text(json.dumps(decisive, sort_keys=True))


class Receipt(BaseModel):
    """What is known of a published step run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    version: int
    artifact: str  # whose folder this receipt lies in: the step's first output
    fingerprint: str
    settings: dict[str, object]
    thresholds: dict[str, object]  # by which the result was judged
    inputs: dict[str, str]  # artifact, or `settings.<name>` of a place or source -> digest
    metrics: Metrics
    contracts: dict[str, str]  # artifact -> digest of the contract it met
    files: dict[str, str]  # "artifact/path", or the artifact of a single file -> sha256

    def to_json(self) -> str:
        """The receipt as stable JSON text, with a checksum of itself."""
        content = self.model_dump()
        whole = {**content, CHECKSUM: _checksum(content)}
        return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    def files_below(self, prefix: str) -> dict[str, str]:
        """The files whose names begin so, without that beginning."""
        return {
            name.removeprefix(prefix): digest
            for name, digest in self.files.items()
            if name.startswith(prefix)
        }


def read_receipt(folder: Path) -> Receipt | None:
    """The receipt of a published folder, or None if it has none that can be read."""
    path = folder / RECEIPT_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _parse(content)
    except (ValueError, TypeError, KeyError, RecursionError):
        _warn_of_damage(path)  # cut off by a crash, a flipped bit, another release
        return None


@lru_cache(maxsize=1024)
def _warn_of_damage(path: Path) -> None:
    """Told once a process: a receipt is read several times around a step."""
    log.warning("%s is damaged, or of another release, and is not trusted", path)


def _parse(content: bytes) -> Receipt:
    whole = json.loads(content)
    if not isinstance(whole, dict):
        raise TypeError("it is no mapping")
    checksum = whole.pop(CHECKSUM)
    if checksum != _checksum(whole):
        raise ValueError("it does not fit its checksum")
    return Receipt.model_validate(whole)


def _checksum(content: object) -> str:
    return sha256_text(json.dumps(content, sort_keys=True))


def input_digests_of_settings(step: Step, settings: StepSettings) -> dict[str, str]:
    """Digests of what settings name: places that are here, and sources.

    Raises:
        InputError: a source in an S3 store cannot be listed.
    """
    endpoint_url = str(getattr(settings, "endpoint_url", ""))
    found = {name: content_digest(path) for name, path in step.places(settings).items()}
    for name, address in step.sources(settings).items():
        found[name] = source_digest(address, endpoint_url, step.source_suffix(name))
    return {f"settings.{name}": digest for name, digest in found.items()}


def receipts_of(name: str, path: Path) -> dict[str, Receipt]:
    """The receipts that speak for an artifact: its own, its groups', or that of all groups.

    A step over all groups leaves one receipt in the folder around its groups.
    """
    own = read_receipt(path)
    if own:
        return {".": own}
    children = sorted(path.iterdir()) if path.is_dir() else []
    groups = {child.name: read_receipt(child) for child in children if child.is_dir()}
    if groups and all(groups.values()):
        return {group: receipt for group, receipt in groups.items() if receipt}
    around = read_receipt(path.parent)
    if around and any(file.startswith(f"{name}/{path.name}/") for file in around.files):
        return {"..": around}
    return {}


def vouched_files(name: str, path: Path) -> dict[str, tuple[str, Receipt]]:
    """Every file of an artifact that a receipt names: relative path -> sha256 and that receipt.

    Empty where no receipt speaks for the artifact.
    """
    found: dict[str, tuple[str, Receipt]] = {}
    for place, receipt in receipts_of(name, path).items():
        if place == "..":
            files = receipt.files_below(f"{receipt.artifact}/{path.name}/")
        else:
            prefix = "" if place == "." else f"{place}/"
            below = receipt.files_below(f"{receipt.artifact}/")
            files = {f"{prefix}{file}": digest for file, digest in below.items()}
        found |= {file: (digest, receipt) for file, digest in files.items()}
    return found


def input_digest(name: str, path: Path) -> str:
    """A digest of an input's files: by its receipts, or read where it has none."""
    vouched = vouched_files(name, path)
    if vouched:
        return digest_of_files({file: digest for file, (digest, _) in vouched.items()})
    return content_digest(path)


def content_digest(path: Path) -> str:
    """Of what the files hold; of names, sizes and times of more than `PIXCLIP_VERIFY_GIB`."""
    if path.is_file():
        return file_sha256(path)
    names = names_below(path)
    if is_too_large(path / name for name in names):
        return digest_by_stats(path, names)
    return digest_of_files(file_digests(path))


NAMED = 3  # files named in a message
# What a step would read although no receipt vouches for it.
DATA_ENDINGS = (".parquet", ".tar", ".safetensors")


# Whether published files are still what their receipts say: disks, copies and people change bytes.
#
# A file is checked before a step reads it, and before an output counts as up to date. Of an
# artifact larger than `PIXCLIP_VERIFY_GIB` (an environment variable, 200 unless set) so much is
# read, and the rest must only be there.


def require_intact(name: str, path: Path) -> None:
    """Compare an input with the receipts or notes that speak for it; one without them passes.

    Raises:
        InputError: names the files that are missing, differ or came later, and the step to repeat.
    """
    vouched = vouched_files(name, path) if path.is_dir() else {}
    written = {path / file: (digest, f"step {by.step}") for file, (digest, by) in vouched.items()}
    written = written or noted_files(path)
    faults = _faults({file: digest for file, (digest, _) in written.items()})
    if vouched:
        faults |= _added(path, written)
    if faults:
        _, maker = written.get(next(iter(faults)), next(iter(written.values())))
        raise InputError(
            f"input {name}: {_told(faults)}, as against what {maker} wrote; it was damaged or "
            f"edited: bring back a good copy, or run {maker} again, which makes it anew"
        )


def damaged_outputs(receipt: Receipt, outputs: Mapping[str, Path]) -> str:
    """What is no longer as it was published, in words; empty if everything is."""
    expected = {}
    for file, digest in receipt.files.items():
        name, _, inner = file.partition("/")
        if name in outputs:
            expected[outputs[name] / inner if inner else outputs[name]] = digest
    faults = _faults(expected) | _added(outputs[receipt.artifact], expected)
    return _told(faults) if faults else ""


def require_nothing_added(name: str, path: Path) -> None:
    """Refuse to replace a folder in which somebody has put files beside those of its receipt.

    Raises:
        InputError: names the files.
    """
    receipt = read_receipt(path)
    if receipt is None:
        return
    known = {path / file for file in receipt.files_below(f"{receipt.artifact}/")} | {
        path / RECEIPT_NAME
    }
    added = sorted(file for file in _visible_files(path) if file not in known)
    if added:
        raise InputError(
            f"output {name}: {path} is made anew, and {len(added)} file(s) in it are not step "
            f"{receipt.step}'s: {', '.join(map(str, added[:NAMED]))}; move them away"
        )


def _added(folder: Path, known: Container[Path]) -> dict[Path, str]:
    """What a step would read of a folder although no receipt vouches for it."""
    files = sorted(file for file in _visible_files(folder) if file.suffix in DATA_ENDINGS)
    return {file: "is in no receipt" for file in files if file not in known}


def _faults(expected: Mapping[Path, str]) -> dict[Path, str]:
    """File -> what is wrong with it."""
    faults = {path: "is missing" for path in expected if not path.is_file()}
    read = _within_limit([path for path in expected if path not in faults])
    for path, found in zip(read, sha256_of_files(read), strict=True):
        if found != expected[path]:
            faults[path] = "holds other bytes"
    return faults


def _within_limit(paths: list[Path]) -> list[Path]:
    left = limit_bytes()
    chosen: list[Path] = []
    for path in paths:
        left -= path.stat().st_size
        if left < 0:
            log.info(
                "%d of %d files were read; %s says how much", len(chosen), len(paths), VARIABLE
            )
            return chosen
        chosen.append(path)
    return chosen


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if _is_visible(path.relative_to(folder)) and not path.is_dir():
            yield path


def _is_visible(name: Path) -> bool:
    return WORK_FOLDER not in name.parts and not any(part.startswith(".") for part in name.parts)


def _told(faults: Mapping[Path, str]) -> str:
    shown = [f"{path} {fault}" for path, fault in list(faults.items())[:NAMED]]
    more = len(faults) - len(shown)
    return "; ".join(shown) + (f"; and {more} more files" if more > 0 else "")


WITH, SHA256 = "published_with", "sha256"


# Whose a published file is: a quarantine, a ledger, curves.
#
# A folder holds its receipt. A single file has a hidden note beside it, which names the folder that
# it was published with (as a relative path) and its digest, so that the file is known again when
# that folder was lost, and is never taken for another run's.


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
