"""The remote, looked at without DVC.

DVC takes the listing of a folder in a remote for a sign that all its files are there, and does not
push them again: what somebody removed or cut off since is put back here.
"""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.core.dvc import CONFIG_NAME, object_name, parse_config, parse_remote
from components.core.errors import InputError, PipelineError
from components.core.hashed import copy_hashed
from components.core.s3 import S3Store, is_s3, split_uri

log = logging.getLogger(__name__)

NUM_THREADS = 8
GONE = {"404", "NoSuchKey", "NotFound"}


class PublishError(PipelineError):
    """Git, DVC or a remote refused; the message holds what it said."""


@dataclass(frozen=True)
class Remote:
    """Where DVC pushes: a folder, or `s3://bucket/prefix` (credentials by AWS's own variables)."""

    url: str
    endpoint_url: str = ""


class Store(Protocol):
    """A remote as objects by md5."""

    def has(self, md5: str, num_bytes: int) -> bool | None:
        """Whether an object is there in its full size; None if that cannot be seen."""

    def put(self, md5: str, path: Path) -> None:
        """Write an object, which appears whole.

        Raises:
            PublishError: it cannot be written.
        """


@dataclass(frozen=True)
class FolderStore:
    """A remote that is a folder."""

    folder: Path

    def has(self, md5: str, num_bytes: int) -> bool:
        """Whether the file is there in its full size."""
        return has_size(self.folder / object_name(md5), num_bytes)

    def put(self, md5: str, path: Path) -> None:
        """Copy a file."""
        target = self.folder / object_name(md5)
        partial = target.with_name(f".{target.name}.pixclip-partial")
        try:
            partial.unlink(missing_ok=True)
            copy_hashed(path, partial)
            partial.replace(target)
        except (InputError, OSError) as error:
            raise PublishError(f"cannot write {target}: {error}") from None


class S3Objects:
    """A remote in an S3 store."""

    def __init__(self, uri: str, endpoint_url: str) -> None:
        self._uri, self._store = uri.rstrip("/"), S3Store(endpoint_url)
        self._endpoint_url = endpoint_url

    def has(self, md5: str, num_bytes: int) -> bool | None:
        """Whether the object is there in its full size; None where DVC alone has credentials."""
        from botocore.exceptions import ClientError

        try:
            return self._store.describe(self._address(md5)).num_bytes == num_bytes
        except InputError as error:
            cause = error.__cause__
            code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
            return False if code in GONE else None

    def put(self, md5: str, path: Path) -> None:
        """Upload a file."""
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = split_uri(self._address(md5))
        try:
            client: Any = boto3.client("s3", endpoint_url=self._endpoint_url or None)
            client.upload_file(str(path), bucket, key)
        except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
            raise PublishError(f"cannot write {self._address(md5)}: {error}") from None

    def _address(self, md5: str) -> str:
        return f"{self._uri}/{object_name(md5)}"


def open_store(remote: Remote, folder: Path) -> Store | None:
    """The remote of the repository at a folder; None if it is of a kind that DVC alone knows."""
    if is_s3(remote.url):
        return S3Objects(remote.url, remote.endpoint_url)
    if "://" in remote.url:
        return None
    return FolderStore(Path(full_address(remote, folder)))


def full_address(remote: Remote, folder: Path) -> str:
    """Where a remote is: an address, or a folder by its full path; DVC's are relative to `.dvc`."""
    url = remote.url
    return url if "://" in url else os.path.normpath(folder / ".dvc" / url)


def look(store: Store | None, sizes: Mapping[str, int]) -> dict[str, bool | None]:
    """Whether each object is there in its full size; None where that cannot be seen."""
    if store is None:
        return dict.fromkeys(sizes)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(sizes, pool.map(store.has, sizes.keys(), sizes.values()), strict=True))


def put_back(store: Store | None, cache: Path, sizes: Mapping[str, int]) -> None:
    """Write the objects that DVC took to be there and that are not.

    Raises:
        PublishError: one cannot be written.
    """
    for md5, is_there in look(store, sizes).items():
        if store is not None and is_there is False:
            log.warning("%s was missing or cut off in the remote: put back", object_name(md5))
            store.put(md5, cache / object_name(md5))


def has_size(path: Path, num_bytes: int) -> bool:
    """Whether a file is there and has so many bytes."""
    return path.is_file() and path.stat().st_size == num_bytes


REMOTE = "storage"
SECTION = f'remote "{REMOTE}"'
LOCAL_CONFIG = f"{CONFIG_NAME}.local"
# Of a repository that is made here. Its folder and cache are links of each other.
NEW_CONFIG = f"""[core]
analytics = false
check_update = false
remote = {REMOTE}

[cache]
type = "hardlink,reflink,copy"
"""


def is_configured(text: str, remote: Remote) -> bool:
    """Whether a configuration names our remote, and a default one."""
    try:
        found = parse_remote(to_bytes(text), REMOTE)
        has_default = bool(parse_config(to_bytes(text)).get("core", {}).get("remote"))
    except InputError:
        return False
    return has_default and (found.url, found.endpoint_url) == (remote.url, remote.endpoint_url)


def configured(text: str, remote: Remote) -> str:
    """A configuration whose remote is ours; everything else in it stays, comments too.

    Raises:
        PublishError: it cannot be read, or the remote cannot be written in it.
    """
    from configobj import ConfigObj, ConfigObjError  # with which DVC reads and writes it

    if is_configured(text, remote):
        return text
    section = {"url": remote.url}
    if remote.endpoint_url:
        section["endpointurl"] = remote.endpoint_url
    try:
        config = ConfigObj(text.splitlines(), interpolation=False)
        config.setdefault("core", {}).setdefault("remote", REMOTE)
        config[SECTION] = section
        return "\n".join(config.write()) + "\n"
    except ConfigObjError as error:
        raise PublishError(f"{CONFIG_NAME} cannot be read or written: {error}") from None


def read_text(path: Path) -> str:
    """A text whose bytes `to_bytes` gives again, UTF-8 or not."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes of a text of `read_text` or of Git."""
    return text.encode("utf-8", "surrogateescape")
