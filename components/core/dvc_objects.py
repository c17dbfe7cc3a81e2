"""Where DVC keeps the bytes of digests, asked without DVC: its cache, a folder, an S3 store."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.core.dvc_repository import object_name
from components.core.errors import InputError
from components.core.hashed import Digests, copy_hashed
from components.core.s3 import S3Store, is_s3, split_uri

GONE = {"404", "NoSuchKey", "NotFound"}  # what S3 stores say of what is not there


class Objects(Protocol):
    """A place that keeps the bytes of digests: DVC's cache, or a remote."""

    def address(self, md5: str) -> str:
        """Where an object lies."""

    def has(self, md5: str, num_bytes: int) -> bool | None:
        """Whether an object is there in its full size; None if that cannot be seen."""

    def bring(self, md5: str, target: Path) -> Digests | None:
        """Copy an object to `target`, which must not exist; None if it is not here.

        Raises:
            InputError: the place cannot be read.
        """

    def put(self, md5: str, path: Path) -> None:
        """Write an object, which appears whole.

        Raises:
            InputError: it cannot be written.
        """


@dataclass(frozen=True)
class FolderObjects:
    """DVC's cache, or a remote that is a folder."""

    folder: Path

    def address(self, md5: str) -> str:
        """The object's path."""
        return str(self.folder / object_name(md5))

    def has(self, md5: str, num_bytes: int) -> bool:
        """Whether the file is there in its full size."""
        return has_size(self.folder / object_name(md5), num_bytes)

    def bring(self, md5: str, target: Path) -> Digests | None:
        """Copy the object, if it is there."""
        path = self.folder / object_name(md5)
        return copy_hashed(path, target) if path.is_file() else None

    def put(self, md5: str, path: Path) -> None:
        """Copy a file."""
        target = self.folder / object_name(md5)
        partial = target.with_name(f".{target.name}.pixclip-partial")
        try:
            partial.unlink(missing_ok=True)
            copy_hashed(path, partial)
            partial.replace(target)
        except (InputError, OSError) as error:
            raise InputError(f"cannot write {target}: {error}") from None


class S3Objects:
    """A remote in an S3 store."""

    def __init__(self, uri: str, endpoint_url: str) -> None:
        self._uri, self._store = uri.rstrip("/"), S3Store(endpoint_url)
        self._endpoint_url = endpoint_url

    def address(self, md5: str) -> str:
        """The object's URI."""
        return f"{self._uri}/{object_name(md5)}"

    def has(self, md5: str, num_bytes: int) -> bool | None:
        """Whether the object is there in its full size; None where DVC alone has credentials."""
        from botocore.exceptions import ClientError

        try:
            return self._store.describe(self.address(md5)).num_bytes == num_bytes
        except InputError as error:
            cause = error.__cause__
            code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
            return False if code in GONE else None

    def bring(self, md5: str, target: Path) -> Digests | None:
        """Download the object; a piece of an earlier attempt is kept."""
        for _ in self._store.download(self._store.describe(self.address(md5)), target):
            pass
        return copy_hashed(target, None)

    def put(self, md5: str, path: Path) -> None:
        """Upload a file."""
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = split_uri(self.address(md5))
        try:
            client: Any = boto3.client("s3", endpoint_url=self._endpoint_url or None)
            client.upload_file(str(path), bucket, key)
        except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
            raise InputError(f"cannot write {self.address(md5)}: {error}") from None


def open_objects(url: str, endpoint_url: str, base: Path) -> Objects | None:
    """A remote, a folder being relative to `base`; None if it is of a kind that DVC alone knows."""
    if is_s3(url):
        return S3Objects(url, endpoint_url)
    return None if "://" in url else FolderObjects(Path(os.path.normpath(base / url)))


def has_size(path: Path, num_bytes: int) -> bool:
    """Whether a file is there and has so many bytes."""
    return path.is_file() and path.stat().st_size == num_bytes
