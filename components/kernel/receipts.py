"""Receipts: what an artifact was made from, so that a rerun repeats nothing that is done.

Every published folder holds `_receipt.json`: step, settings, digests of the inputs, metrics, the
contract's result and the sha256 of every file. It holds no time and no path, so that equal work
gives equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from components.kernel.step import Metrics, Step, StepSettings

RECEIPT_NAME = "_receipt.json"


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
    """The receipt of a published folder, or None if it has none."""
    try:
        text = (folder / RECEIPT_NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Receipt(**json.loads(text))


def fingerprint(step: Step, settings: StepSettings, inputs: Mapping[str, str]) -> str:
    """A digest of everything that decides a step's outputs."""
    return sha256_text(
        json.dumps([step.name, step.fingerprinted_settings(settings), dict(inputs)], sort_keys=True)
    )


def input_digest(path: Path) -> str:
    """A digest of an input: of its receipts, or of names, sizes and times where it has none."""
    receipts = [path / RECEIPT_NAME] if path.is_dir() else []
    if not (receipts and receipts[0].exists()):
        receipts = sorted(path.glob(f"*/{RECEIPT_NAME}")) if path.is_dir() else []
    if receipts:
        return sha256_text("\n".join(file_sha256(receipt) for receipt in receipts))
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    stats = [(file, file.stat()) for file in files]
    return sha256_text(
        "\n".join(
            f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats
        )
    )


def file_digests(path: Path) -> dict[str, str]:
    """sha256 of every file of an artifact by relative path, without the receipt."""
    if path.is_file():
        return {path.name: file_sha256(path)}
    return {
        str(file.relative_to(path)): file_sha256(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != RECEIPT_NAME
    }


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """sha256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()
