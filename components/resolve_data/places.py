"""A data set that is not under DVC: a folder, whose files are copied, or an S3 prefix."""

import hashlib
from pathlib import Path, PurePosixPath

from components.kernel.errors import InputError
from components.kernel.hashed import copy_all, copy_hashed, files_below, require_name
from components.kernel.progress import progress
from components.kernel.s3 import S3Object, S3Store, is_s3, split_uri
from components.kernel.tables import WORK_FOLDER
from components.resolve_data.storage import place_object


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
