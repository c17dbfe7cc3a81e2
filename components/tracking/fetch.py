"""Bring a registered model to a folder: `pixclip fetch models:/pixclip@champion`.

The folder is a plain checkpoint: `pixclip.load` opens it without MLflow.
"""

import tempfile
from pathlib import Path

from components.kernel.errors import InputError
from components.tracking.checksums import require_sums
from components.tracking.names import parse_address
from components.tracking.registry import SUMS_TAG, Registry, Version

MODELS_FOLDER = Path("models")


def fetch(address: str, into: Path | None, tracking_uri: str) -> Path:
    """The folder with the model; every file is checked, and it appears at once and whole.

    Args:
        address: `models:/<name>@<alias>` or `models:/<name>/<number>`.
        into: a folder that is not there yet; None: `models/<name>-<number>`.

    Raises:
        SettingsError: the address is none.
        InputError: no such model, a damaged file, or something else is in the folder's place.
        TrackingError: MLflow or the store cannot be reached.
    """
    registry = Registry(tracking_uri)
    version = registry.get(parse_address(address))
    target = into or MODELS_FOLDER / f"{version.model}-{version.number}"
    if target.exists():
        _require_same(target, version)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        folder = Path(draft) / "model"
        folder.mkdir()
        registry.download_verified(version, folder).rename(target)
    return target


def _require_same(target: Path, version: Version) -> None:
    try:
        require_sums(target, version.tags.get(SUMS_TAG, ""))
    except InputError:
        raise InputError(
            f"{target} is there already and is not {version.reference}; name another folder: "
            "--into FOLDER"
        ) from None
