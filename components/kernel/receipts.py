"""Receipts: what an artifact was made from, so that a rerun repeats nothing that is done.

Every published folder holds `_receipt.json`: step, settings, digests of the inputs, metrics, the
contract's result and the sha256 of every file. It holds no time and no path, so that equal work
gives equal bytes.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components.kernel.step import Metrics, Step, StepSettings
from components.kernel.tables import WORK_FOLDER

log = logging.getLogger(__name__)

RECEIPT_NAME = "_receipt.json"
MAX_HASHED_BYTES = 2**30  # of an input without a receipt: hashing takes a second or two


@dataclass(frozen=True)
class Receipt:
    """What is known of a published step run."""

    step: str
    fingerprint: str
    settings: Mapping[str, object]
    inputs: Mapping[str, str]
    metrics: Metrics
    contracts: Mapping[str, str]  # artifact -> digest of the contract it met
    files: Mapping[str, str]  # "artifact/path" -> sha256

    def to_json(self) -> str:
        """The receipt as stable JSON text."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def read_receipt(folder: Path) -> Receipt | None:
    """The receipt of a published folder, or None if it has none that can be read."""
    try:
        text = (folder / RECEIPT_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Receipt(**json.loads(text))
    except (ValueError, TypeError):  # cut off by a crash of the machine: it vouches for nothing
        log.warning("%s is damaged and is not trusted", folder / RECEIPT_NAME)
        return None


def fingerprint(step: Step, settings: StepSettings, inputs: Mapping[str, str]) -> str:
    """A digest of everything that decides a step's outputs."""
    places = {name: _files_digest(path) for name, path in step.places(settings).items()}
    decisive = [step.name, step.fingerprinted_settings(settings), {**inputs, **places}]
    return sha256_text(json.dumps(decisive, sort_keys=True))


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


def input_digest(name: str, path: Path) -> str:
    """A digest of an input: of its receipts, or of its files where it has none."""
    receipts = receipts_of(name, path)
    if ".." in receipts:
        part = f"{name}/{path.name}/"
        files = [f"{n} {d}" for n, d in receipts[".."].files.items() if n.startswith(part)]
        return sha256_text("\n".join(sorted(files)))
    if receipts:
        return sha256_text("\n".join(_of_artifact(name, r).to_json() for r in receipts.values()))
    return _files_digest(path)


def _of_artifact(name: str, receipt: Receipt) -> Receipt:
    """The receipt without the files of the step's other outputs: a ledger, say, holds times."""
    files = {file: digest for file, digest in receipt.files.items() if file.startswith(f"{name}/")}
    return replace(receipt, files=files) if files else receipt


def _files_digest(path: Path) -> str:
    """Of what the files hold, up to a gigabyte; of their names, sizes and times beyond it."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    stats = {file: file.stat() for file in files}
    is_small = sum(stat.st_size for stat in stats.values()) <= MAX_HASHED_BYTES
    return sha256_text(
        "\n".join(
            f"{file.relative_to(path)} "
            + (file_sha256(file) if is_small else f"{stat.st_size} {stat.st_mtime_ns}")
            for file, stat in stats.items()
        )
    )


def file_digests(path: Path) -> dict[str, str]:
    """sha256 of every file of an artifact by relative path, without receipt and unfinished work."""
    if path.is_file():
        return {path.name: file_sha256(path)}
    return {
        str(file.relative_to(path)): file_sha256(file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and file.name != RECEIPT_NAME
        and file.relative_to(path).parts[0] != WORK_FOLDER
    }


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """sha256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()
