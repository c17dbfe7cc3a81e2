"""Whether published files are still what their receipts say: disks, copies and people change bytes.

A file is checked before a step reads it, and before an output counts as up to date. Of an artifact
larger than `PIXCLIP_VERIFY_GIB` (an environment variable, 200 unless set) so much is read, and the
rest must only be there.
"""

import logging
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from components.kernel.digests import RECEIPT_NAME, VARIABLE, limit_bytes, sha256_of_files
from components.kernel.errors import InputError
from components.kernel.owners import noted_files
from components.kernel.receipts import Receipt, read_receipt, vouched_files
from components.kernel.tables import WORK_FOLDER

log = logging.getLogger(__name__)

NAMED = 3  # files named in a message
# What a step would read although no receipt vouches for it.
DATA_ENDINGS = (".parquet", ".tar", ".safetensors")


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
    """What is no longer as it was published, told; empty if all is."""
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
    known = {path / file for file in receipt.files_below(f"{name}/")} | {path / RECEIPT_NAME}
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
