"""Bring a version of LongGRIT out of the DVC repository that keeps it.

pixclip resolve-data --longgrit runs/data/longgrit --set repository=runs/repository \
    --set revision=main

`version.json` inside the data set says what was brought: repository, commit, DVC's digest. Every
file has the digest that the version's commit names, and the one of the data set's own receipt, or
nothing is published. The contract of `longgrit` is checked before the data set is published.
"""

import json
from pathlib import Path

from components.kernel.digests import RECEIPT_NAME
from components.kernel.drafts import remove
from components.kernel.errors import InputError
from components.kernel.hashed import files_below, require_receipt
from components.kernel.step import Metrics, Out, step
from components.kernel.tables import WORK_FOLDER
from components.resolve_data.settings import ResolveDataSettings

VERSION_NAME = "version.json"


# A branch moves: the step looks every time.
@step(image="train", is_pure=False)
def resolve_data(longgrit: Out, settings: ResolveDataSettings) -> Metrics:
    """Bring a version of LongGRIT out of the DVC repository that keeps it."""
    _clear(longgrit)
    try:
        version, digests = _bring(settings, longgrit)
    except OSError as error:  # a full disk, a folder that may not be read
        raise InputError(
            f"resolve_data: {error.filename or longgrit}: {error.strerror or error}"
        ) from error
    where = settings.uri or f"{settings.repository} at {settings.revision}"
    require_receipt(
        longgrit, digests, "longgrit", f"what was brought from {where} is damaged there"
    )
    # The receipt that came with the data is about another place; this step leaves its own.
    (longgrit / RECEIPT_NAME).unlink(missing_ok=True)
    if not (longgrit / "manifest.parquet").is_file():
        raise InputError(f"{json.dumps(version)} holds no LongGRIT: manifest.parquet is missing")
    (longgrit / VERSION_NAME).unlink(missing_ok=True)  # of where the data set came from
    (longgrit / VERSION_NAME).write_text(
        json.dumps(version, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return _count(longgrit)


def _bring(settings: ResolveDataSettings, longgrit: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What was brought, told, and the sha256 of its files."""
    from components.resolve_data.places import bring_uri
    from components.resolve_data.versions import bring_version

    if settings.uri:
        return bring_uri(settings.uri, settings.endpoint_url, longgrit)
    name, endpoint_url = settings.name, settings.endpoint_url
    return bring_version(settings.repository, settings.revision, name, longgrit, endpoint_url)


def _clear(longgrit: Path) -> None:
    """Take away what a killed attempt had put in place; what it had fetched stays."""
    longgrit.mkdir(parents=True, exist_ok=True)
    for path in longgrit.iterdir():
        if path.name != WORK_FOLDER:
            remove(path)


def _count(longgrit: Path) -> Metrics:
    sizes = [path.stat().st_size for path in files_below(longgrit).values()]
    return {"num_files": len(sizes), "size_bytes": sum(sizes)}
