"""Bring a version of the data set out of the DVC repository that keeps it.

Or one that is not under DVC (`uri`): a folder, whose files are copied, or an S3 prefix.

pixclip resolve-data --dataset runs/data/longgrit --set repository=runs/repository \
    --set revision=main

`version.json` inside the data set says what was brought: repository, commit, DVC's digest. Every
file has the digest that the version's commit names, and the one of the data set's own receipt, or
nothing is published. The contract of a `dataset` is checked before it is published.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath

from pydantic import Field

from components.core.digests import RECEIPT_NAME
from components.core.drafts import remove
from components.core.errors import InputError
from components.core.hashed import copy_all, copy_hashed, files_below, require_name, require_receipt
from components.core.progress import progress
from components.core.s3 import S3Object, S3Store, is_s3, split_uri
from components.core.step import Metrics, Out, StepSettings, location, runtime, source, step
from components.core.tables import WORK_FOLDER
from components.data.resolve_data.storage import place_object
from components.data.resolve_data.versions import COMMIT, bring_version, find_commit
from pixclip.data.layout import MANIFEST_NAME

VERSION_NAME = "version.json"


class ResolveDataSettings(StepSettings):
    """Which version of the data set, and where it is kept."""

    repository: str = location(
        "runs/repository", "folder or URL of the Git repository that keeps the versions under DVC"
    )
    revision: str = Field(
        "HEAD",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description="branch, tag or full commit of the version",
    )
    name: str = Field(
        "longgrit",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of the data set inside the repository",
    )
    uri: str = source(
        "",
        "instead of a repository: folder or s3://bucket/prefix of a data set that is not under DVC",
    )
    endpoint_url: str = runtime("", "URL of an S3 server that is not AWS's; empty: AWS")


def is_pinned(settings: ResolveDataSettings) -> bool:
    """Whether the settings mean one version for ever: a full commit, or a source by its content."""
    return bool(settings.uri) or bool(COMMIT.fullmatch(settings.revision))


def pin(settings: ResolveDataSettings) -> dict[str, object]:
    """The commit that a branch or tag means at the moment.

    Raises:
        InputError: the repository cannot be read, or has no such branch or tag.
    """
    if is_pinned(settings):
        return {}
    return {"revision": find_commit(settings.repository, settings.revision)}


# A branch moves: with one the step looks every time.
@step(image="train", is_pure=is_pinned, pin=pin)
def resolve_data(dataset: Out, settings: ResolveDataSettings) -> Metrics:
    """Bring a version of the data set out of the DVC repository that keeps it."""
    _clear(dataset)
    try:
        version, digests = _bring(settings, dataset)
    except OSError as error:  # a full disk, a folder that may not be read
        raise InputError(
            f"resolve_data: {error.filename or dataset}: {error.strerror or error}"
        ) from error
    where = settings.uri or f"{settings.repository} at {settings.revision}"
    require_receipt(dataset, digests, "dataset", f"what was brought from {where} is damaged there")
    # The receipt that came with the data is about another place; this step leaves its own.
    (dataset / RECEIPT_NAME).unlink(missing_ok=True)
    if not (dataset / MANIFEST_NAME).is_file():
        raise InputError(f"{json.dumps(version)} holds no data set: {MANIFEST_NAME} is missing")
    (dataset / VERSION_NAME).unlink(missing_ok=True)  # of where the data set came from
    (dataset / VERSION_NAME).write_text(
        json.dumps(version, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return _count(dataset)


def _bring(settings: ResolveDataSettings, dataset: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What was brought, in words, and the sha256 of its files."""
    if settings.uri:
        return bring_uri(settings.uri, settings.endpoint_url, dataset)
    name, endpoint_url = settings.name, settings.endpoint_url
    return bring_version(settings.repository, settings.revision, name, dataset, endpoint_url)


def _clear(dataset: Path) -> None:
    """Take away what a killed attempt had put in place; what it had fetched stays."""
    dataset.mkdir(parents=True, exist_ok=True)
    for path in dataset.iterdir():
        if path.name != WORK_FOLDER:
            remove(path)


def _count(dataset: Path) -> Metrics:
    sizes = [path.stat().st_size for path in files_below(dataset).values()]
    return {"num_files": len(sizes), "size_bytes": sum(sizes)}


def bring_uri(uri: str, endpoint_url: str, target: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Bring all files of a folder or a prefix to `target`; where they came from, sha256 by file.

    Nothing is linked: the files stay the user's own, and what lies here stays as it was brought.

    Raises:
        InputError: there is no such folder, or a file cannot be fetched.
    """
    bring = _fetch(S3Store(endpoint_url), uri, target) if is_s3(uri) else _copy(Path(uri), target)
    return {"uri": uri}, bring


def _copy(source: Path, target: Path) -> dict[str, str]:
    if not source.is_dir():
        raise InputError(f"resolve_data.uri: {source} is no folder")
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"resolve_data.uri: {source} holds the output {target}; name another")
    copied = copy_all(files_below(source), target)
    return {name: digests.sha256 for name, digests in copied.items()}


def _fetch(store: S3Store, uri: str, target: Path) -> dict[str, str]:
    _, prefix = split_uri(uri)
    objects = store.list_objects(uri)
    digests = {}
    with progress("fetch", sum(item.num_bytes for item in objects), unit="B") as bar:
        for item in objects:
            name = str(PurePosixPath(item.key[len(prefix.rstrip("/")) :].lstrip("/")))
            require_name(name, item.uri)
            if PurePosixPath(name).parts[0] == WORK_FOLDER:
                continue
            # A rerun finds what was fetched, if the object is still the same.
            fetched = target / WORK_FOLDER / "objects" / _identity(item)
            if not fetched.exists():
                for num_bytes in store.download(item, fetched):
                    bar.update(num_bytes)
            digests[name] = copy_hashed(fetched, None).sha256
            place_object(fetched, [target / name])
    return digests


def _identity(item: S3Object) -> str:
    return hashlib.sha256(f"{item.uri} {item.etag} {item.num_bytes}".encode()).hexdigest()
