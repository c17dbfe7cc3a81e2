"""Where the bytes of a version are: the cache beside a local repository, and its remote.

An object's name is the md5 of its bytes, so each is checked while it is copied, and another place
is asked for one that is damaged.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.core.dvc_objects import FolderObjects, Objects, S3Objects
from components.core.dvc_repository import CACHE, RemoteAddress
from components.core.errors import InputError
from components.core.files import link_or_copy
from components.core.hashed import Digests, copy_hashed
from components.core.progress import progress
from components.core.s3 import is_s3
from components.core.tables import WORK_FOLDER

log = logging.getLogger(__name__)

NUM_THREADS = 8
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def open_storages(
    repository: Path | None, remote: RemoteAddress, endpoint_url: str
) -> list[Objects]:
    """The places to ask, in order; `repository` is its folder if it is on this machine.

    Requests are signed for no server but AWS's or the one that our own settings name.

    Raises:
        InputError: the remote is of a kind or at a server that is not asked.
    """
    storages: list[Objects] = []
    if repository:
        storages.append(FolderObjects(repository / CACHE))
    url = remote.url
    if is_s3(url):
        storages.append(S3Objects(url, _allowed_endpoint(remote, endpoint_url)))
    elif "://" in url and not url.startswith("file://"):
        raise InputError(
            f"the repository's remote {url} is neither a folder nor s3://bucket/prefix, and no "
            "other is asked; bring it with `dvc get` and name the folder by resolve_data.uri"
        )
    else:
        path = Path(url.removeprefix("file://"))
        if not (path.is_absolute() or repository):
            raise InputError(
                f"the repository's remote {url} is a folder beside it, on another machine; name "
                "the repository by its folder, or publish to a remote that both machines reach"
            )
        base = repository / ".dvc" if repository else Path()
        storages.append(FolderObjects(Path(os.path.normpath(base / path))))
    return storages


def _allowed_endpoint(remote: RemoteAddress, endpoint_url: str) -> str:
    named = [os.environ.get(name, "") for name in ENDPOINT_VARIABLES]
    own = endpoint_url or next((name for name in named if name), "")
    if remote.endpoint_url and not own:
        raise InputError(
            f"the repository says that {remote.url} is at {remote.endpoint_url}; a repository does "
            "not decide where signed requests go. If that server is yours, set "
            f"resolve_data.endpoint_url: {remote.endpoint_url}"
        )
    return endpoint_url  # boto3 reads its variables itself


def fetch_object(
    storages: Sequence[Objects], md5: str, what: str, work: Path
) -> tuple[Path, Digests]:
    """A file in the work folder with the bytes that a digest names; a rerun finds it there.

    Raises:
        InputError: no place has it whole; names the object and every place.
    """
    target, expected = work / "objects" / md5, md5.removesuffix(".dir")
    if target.is_file():
        digests = copy_hashed(target, None)
        if digests.md5 == expected:
            return target, digests
        target.unlink()
    said = []
    for storage in storages:
        arriving = target.with_name(f"{md5}.arriving")
        arriving.unlink(missing_ok=True)
        try:
            found = storage.bring(md5, arriving)
        except InputError as error:
            said.append(str(error))
            continue
        if found and found.md5 == expected:
            arriving.rename(target)
            return target, found
        address = storage.address(md5)
        said.append(f"{address} is damaged: it holds other bytes" if found else f"no {address}")
        if found:
            log.warning("%s: %s", what, said[-1])
        arriving.unlink(missing_ok=True)
    raise InputError(
        f"{what} is not to be had as it was published: {'; '.join(said)}. Remove what is damaged "
        "and publish the same data set again, or restore it from a backup"
    )


def bring_files(
    storages: Sequence[Objects], files: Mapping[str, str], target: Path, num_bytes: int
) -> dict[str, str]:
    """Bring files by name and md5 below `target`; their sha256.

    Raises:
        InputError: one is not to be had whole, or cannot be written.
    """
    names: dict[str, list[str]] = {}
    for name, md5 in files.items():
        names.setdefault(md5, []).append(name)

    def bring(md5: str) -> Digests:
        path, digests = fetch_object(storages, md5, names[md5][0], target / WORK_FOLDER)
        place_object(path, [target / name for name in names[md5]])
        return digests

    digests = {}
    with ThreadPoolExecutor(NUM_THREADS) as pool, progress("bring", num_bytes, unit="B") as bar:
        for md5, found in zip(names, pool.map(bring, names), strict=True):
            digests.update(dict.fromkeys(names[md5], found.sha256))
            bar.update(found.num_bytes * len(names[md5]))
    return digests


def place_object(path: Path, targets: Sequence[Path]) -> None:
    """Give a file of the work folder its names: a link of our own, and copies for all but one.

    Raises:
        InputError: one cannot be written.
    """
    for number, place in enumerate(targets):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not number:
                link_or_copy(str(path), str(place))
                continue
        except OSError as error:
            raise InputError(f"cannot write {place}: {error.strerror}") from None
        copy_hashed(path, place)
