"""Receipts: what an artifact was made from, so that a rerun repeats nothing that is done.

Every published folder holds `_receipt.json`: step, settings, digests of the inputs, metrics, the
contract's result and the sha256 of every file. It holds no time and no path, so that equal work
gives equal bytes. What follows from an artifact depends on its files alone: another step's metrics
or settings, equal bytes given, change nothing.
"""

import json
import logging
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.kernel.digests import (
    RECEIPT_NAME,
    digest_by_stats,
    digest_of_files,
    file_digests,
    file_sha256,
    is_too_large,
    names_below,
    sha256_text,
)
from components.kernel.sources import source_digest
from components.kernel.step import Metrics, Step, StepSettings

log = logging.getLogger(__name__)

CHECKSUM = "checksum"


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


def fingerprint(step: Step, settings: StepSettings, inputs: dict[str, str]) -> str:
    """A digest of everything that decides a step's outputs: its code's version among it."""
    decisive = [step.name, step.version, step.fingerprinted_settings(settings), inputs]
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
