"""Whether published files are still what their receipts say: disks, copies and people change bytes.

A file is checked before a step reads it, and before an output counts as up to date. Of an artifact
larger than `PIXCLIP_VERIFY_GIB` (an environment variable, 200 unless set) so much is read, and the
rest must only be there.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from components.kernel.digests import VARIABLE, limit_bytes, sha256_of_files
from components.kernel.errors import InputError
from components.kernel.receipts import Receipt, vouched_files
from components.kernel.tables import WORK_FOLDER

log = logging.getLogger(__name__)

NAMED = 3  # files named in a message
# What a step would read although no receipt vouches for it.
DATA_ENDINGS = (".parquet", ".tar", ".safetensors")


def require_intact(name: str, path: Path) -> None:
    """Compare an input with the receipts that speak for it; one without receipts passes.

    Raises:
        InputError: names the files that are missing, differ or came later, and the step to repeat.
    """
    vouched = vouched_files(name, path)
    if not vouched or not path.is_dir():
        return
    faults = _faults({path / file: digest for file, (digest, _) in vouched.items()})
    for file in sorted(_data_files(path) - {path / file for file in vouched}):
        faults[file] = "is in no receipt"
    if faults:
        maker = next(iter(vouched.values()))[1].step
        raise InputError(
            f"input {name}: {_told(faults)}, as against what step {maker} wrote; it was damaged or "
            f"edited: bring back a good copy, or run {maker} again, which makes it anew"
        )


def damaged_outputs(receipt: Receipt, outputs: Mapping[str, Path]) -> str:
    """What is no longer as it was published, told; empty if all is."""
    expected = {}
    for file, digest in receipt.files.items():
        name, _, inner = file.partition("/")
        if name in outputs:
            expected[outputs[name] / inner if inner else outputs[name]] = digest
    faults = _faults(expected)
    return _told(faults) if faults else ""


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


def _data_files(folder: Path) -> set[Path]:
    return {
        path
        for path in folder.rglob("*")
        if path.suffix in DATA_ENDINGS and _is_visible(path.relative_to(folder))
    }


def _is_visible(name: Path) -> bool:
    return WORK_FOLDER not in name.parts and not any(part.startswith(".") for part in name.parts)


def _told(faults: Mapping[Path, str]) -> str:
    shown = [f"{path} {fault}" for path, fault in list(faults.items())[:NAMED]]
    more = len(faults) - len(shown)
    return "; ".join(shown) + (f"; and {more} more files" if more > 0 else "")
