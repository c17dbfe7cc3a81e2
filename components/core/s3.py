"""Objects of an S3 store: list and fetch them; credentials come from boto3's own chain."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import InputError

SCHEME = "s3://"
PIECE_BYTES = 1 << 20
REPLACED = "it was replaced while it was read: run the step again"
# By the code of the store's answer.
ADVICE = {
    "PreconditionFailed": REPLACED,
    "412": REPLACED,
    "500": "the store fails, or what answers there does not speak S3: look at endpoint_url",
    "NoSuchKey": "it is gone since it was listed: run the step again",
    "404": "there is nothing of that name: look at the bucket and the key",
    "NoSuchBucket": "there is no such bucket there: look at the name and at endpoint_url",
    "AccessDenied": "the credentials may not do that: look at boto3's configuration",
    "InvalidAccessKeyId": "this store does not know the credentials: look at endpoint_url",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session has ended: get new credentials",
    "InvalidObjectState": "it lies in an archive: restore it first",
}


@dataclass(frozen=True)
class S3Object:
    """An object of a bucket; `etag` changes with its content."""

    bucket: str
    key: str
    num_bytes: int
    etag: str

    @property
    def uri(self) -> str:
        """`s3://bucket/key`."""
        return f"{SCHEME}{self.bucket}/{self.key}"


def is_s3(uri: str) -> bool:
    """Whether a text names something in an S3 store."""
    return uri.startswith(SCHEME)


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key (or prefix, possibly empty) of `s3://bucket/key`.

    Raises:
        InputError: the text is no such URI.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not is_s3(uri) or not bucket:
        raise InputError(f"{uri!r} is not of the form s3://bucket/prefix")
    return bucket, key


class S3Store:
    """An S3 store; `endpoint_url` is empty for AWS itself."""

    def __init__(self, endpoint_url: str) -> None:
        """Connects to nothing yet.

        Raises:
            InputError: the address is none, or boto3 cannot work with its own configuration.
        """
        import boto3
        from botocore.exceptions import BotoCoreError

        self._endpoint = endpoint_url or "AWS"
        try:
            self._client: Any = boto3.client("s3", endpoint_url=endpoint_url or None)
        except (BotoCoreError, ValueError) as error:
            raise InputError(f"cannot use the S3 store at {self._endpoint}: {error}") from error

    def list_objects(self, uri: str) -> list[S3Object]:
        """The objects below `s3://bucket/prefix`, by key.

        Raises:
            InputError: the bucket cannot be listed.
        """
        bucket, prefix = split_uri(uri)
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with self._told(uri):
            found = {  # by key: an object that is written meanwhile can come on two pages
                item["Key"]: S3Object(bucket, item["Key"], item["Size"], item.get("ETag", ""))
                for page in pages
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")  # what consoles show as an empty folder
            }
        if without := [key for key, item in found.items() if not item.etag]:
            raise InputError(
                f"{self._endpoint} gives no ETag for {uri} ({len(without)} objects, e.g. "
                f"{without[0]}): whether they change cannot be told; copy them to a folder"
            )
        return list(found.values())

    def find(self, uri: str) -> list[S3Object]:
        """The objects below a prefix, or else the object of that very key, or else none.

        Raises:
            InputError: the bucket cannot be listed, or the object not be looked at.
        """
        below = self.list_objects(uri)
        if below or not split_uri(uri)[1]:
            return below
        try:
            return [self.describe(uri)]
        except InputError as error:
            answer = getattr(error.__cause__, "response", {})
            if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return []
            raise

    def describe(self, uri: str) -> S3Object:
        """One object.

        Raises:
            InputError: it is not there or not readable.
        """
        bucket, key = split_uri(uri)
        with self._told(uri):
            head = self._client.head_object(Bucket=bucket, Key=key)
        return S3Object(bucket, key, head["ContentLength"], head.get("ETag", ""))

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """The beginning of an object, at most so many bytes; None if there is no such object.

        Raises:
            InputError: it cannot be read.
        """
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        with self._told(uri):
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                    return None
                raise
            with closing(answer["Body"]) as body:
                return bytes(body.read(max_bytes))

    def download(self, source: S3Object, target: Path) -> Iterator[int]:
        """Bring an object to `target` by rename, giving the bytes of each piece.

        A piece of an earlier attempt is kept if the object is still the same.

        Raises:
            InputError: the object cannot be read, or changes meanwhile.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        safe_etag = "".join(char for char in source.etag if char.isalnum())
        partial = target.with_name(f".{target.name}.{safe_etag}.partial")
        partial.touch()
        start = partial.stat().st_size
        if start < source.num_bytes:
            with self._told(source.uri), partial.open("ab") as file:
                answer = self._get(source, start)
                if "ContentRange" not in answer:  # a store without ranges sends all of it
                    file.truncate(0)
                with closing(answer["Body"]) as body:  # as its own context it is another object
                    for piece in body.iter_chunks(PIECE_BYTES):
                        yield file.write(piece)
        if partial.stat().st_size != source.num_bytes:
            partial.unlink()
            raise InputError(f"{source.uri} did not arrive whole; run the step again")
        partial.replace(target)

    def _get(self, source: S3Object, start: int) -> dict[str, Any]:
        condition = {"IfMatch": source.etag} if source.etag else {}
        answer: dict[str, Any] = self._client.get_object(
            Bucket=source.bucket, Key=source.key, Range=f"bytes={start}-", **condition
        )
        begins = answer.get("ContentRange", f"bytes {start}-").startswith(f"bytes {start}-")
        if answer.get("ETag", source.etag) != source.etag or not begins:
            answer["Body"].close()  # a store that knows no conditions
            raise InputError(f"{source.uri} at {self._endpoint}: {REPLACED}")
        return answer

    @contextmanager
    def _told(self, uri: str) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            advice = f"; {ADVICE[code]}" if code in ADVICE else ""
            raise InputError(f"cannot read {uri} at {self._endpoint}: {error}{advice}") from error
        except (ResponseParserError, RecursionError) as error:
            raise InputError(  # boto3 follows a redirect in a circle until it can no more
                f"cannot read {uri}: what answers at {self._endpoint} does not speak S3 ({error})"
            ) from error
        except (BotoCoreError, HTTPError, UnicodeError) as error:
            raise InputError(f"cannot read {uri} at {self._endpoint}: {error}") from error
