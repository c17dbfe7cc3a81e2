"""Fetch file:/// URLs, inside one folder only, and s3:// URLs, from the buckets of the settings.

A URL may promise the content of its file, `file:///name#sha256=…`. Then nothing else is taken, and
a link in the folder is followed wherever it leads: `import_coco` read the file on the operator's
behalf, and a stranger's record cannot know the digest of a file that its author has not read.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from components.data.ingest.body import Body
from components.data.ingest.failures import LOCAL_ERRNOS, FetchError, WorldError, local_fault
from components.data.ingest.reuse import bucket_of, scheme_of
from components.data.ingest.settings import IngestSettings
from data_contracts.reasons import IngestReason

PIECE_BYTES = 2**20


def read_file_url(url: str, file_root: str, max_bytes: int) -> bytes:
    """The bytes of `file:///path`, the path being relative to `file_root`.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`, `file_changed`, `too_large`,
            `not_an_image`.
    """
    path = resolve_file_url(url, file_root)
    try:
        with path.open("rb") as file, Body(max_bytes) as body:
            while piece := file.read(PIECE_BYTES):
                body.write(piece)
            data = body.value()
    except OSError as error:
        if error.errno in LOCAL_ERRNOS:
            raise local_fault(error, f"cannot read {path}") from error
        raise FetchError(IngestReason.FILE_MISSING, "the file cannot be read") from None
    promise = promised_sha256(url)
    if promise and hashlib.sha256(data).hexdigest() != promise:
        raise FetchError(
            IngestReason.FILE_CHANGED, "not the file that was imported; import the source again"
        )
    return data


def promised_sha256(url: str) -> str:
    """The digest of the content that a URL promises; "" if it promises none."""
    name, _, digest = urlsplit(url).fragment.partition("=")
    return digest if name == "sha256" else ""


def resolve_file_url(url: str, file_root: str) -> Path:
    """The regular file behind a URL; a path that leaves `file_root`, also by a link, is refused.

    A link that leads out is followed where the URL promises what is behind it, and keeps that.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`.
        WorldError: `file_root` is not there.
    """
    if not file_root:
        raise FetchError(
            IngestReason.FILE_NOT_ALLOWED, "ingest.file_root is empty: file URLs are refused"
        )
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FetchError(IngestReason.FILE_NOT_ALLOWED, "a file URL names no host: file:///path")
    root = Path(file_root).resolve()
    if not root.is_dir():
        raise WorldError(
            f"ingest: {file_root} is no folder: set ingest.file_root to the one that the images of "
            "file:/// URLs lie in, and start it again"
        )
    try:
        name = os.fsdecode(unquote_to_bytes(parts.path)).lstrip("/")
        path = (root / name).resolve()
        if not path.is_relative_to(root) and not _is_promised(path, name, url):
            raise FetchError(
                IngestReason.FILE_NOT_ALLOWED,
                "the path leaves ingest.file_root; a link that leads out is followed only for "
                "pictures that import_coco has read",
            )
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # also NUL characters, loops of links
        raise FetchError(IngestReason.FILE_MISSING, _why_missing(error)) from None
    if not stat.S_ISREG(mode):
        raise FetchError(IngestReason.FILE_NOT_ALLOWED, "not a regular file")
    return path


def _is_promised(path: Path, name: str, url: str) -> bool:
    """Whether a file outside the root is behind a link below it and is what the URL promises."""
    promise = promised_sha256(url)
    if not promise or ".." in PurePosixPath(name).parts or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promise


def _why_missing(error: Exception) -> str:
    is_loop = isinstance(error, RuntimeError) or getattr(error, "errno", 0) == errno.ELOOP
    return "the path is a loop of links" if is_loop else "no such file below ingest.file_root"


S3_PIECE_BYTES = 2**18
MISSING_CODES = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
DENIED_CODES = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
# What is wrong with who asks or where, whatever the object.
OUR_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "IllegalLocationConstraintException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "InvalidTokenId",
        "NotSignedUp",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
WORLDLY = frozenset({IngestReason.S3_DENIED, IngestReason.S3_UNREACHABLE})
RETRIED_STATUS = frozenset({408, 429})  # and every 5xx


class S3Source:
    """Fetches objects; usable from many threads.

    There is no client before an allowed bucket is asked for: making one looks for credentials, also
    at a cloud's metadata address.
    """

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._client: Any = None

    def fetch(self, url: str) -> bytes:
        """The object behind `s3://bucket/key`.

        Raises:
            FetchError: why there is none.
            WorldError: the credentials or the store's address are wrong.
        """
        bucket, key = parse_s3_url(url, self._settings.s3_buckets)
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        try:
            return self._read(self._connected(), bucket, key)
        except exceptions.ClientError as error:
            raise failure_of(error.response, bucket) from error
        except (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.ResponseStreamingError,
            HTTPError,
        ) as error:
            raise FetchError(
                IngestReason.S3_UNREACHABLE, type(error).__name__, is_transient=True
            ) from error
        except exceptions.ParamValidationError as error:
            raise FetchError(
                IngestReason.BAD_URL, "S3 has no such names of buckets or keys"
            ) from error
        except (exceptions.BotoCoreError, ValueError) as error:
            # Credentials, profiles, regions, endpoints: all that is not the object's.
            raise _our_fault(bucket, str(error)) from error

    def _connected(self) -> Any:
        import boto3
        from botocore.config import Config

        with self._lock:
            if self._client is None:
                self._client = boto3.client(
                    "s3",
                    endpoint_url=self._settings.s3_endpoint or None,
                    config=Config(
                        connect_timeout=self._settings.connect_timeout_s,
                        read_timeout=self._settings.read_timeout_s,
                        retries={"total_max_attempts": 1},  # ingest retries by its own rules
                        max_pool_connections=self._settings.concurrency,
                    ),
                )
            return self._client

    def _read(self, client: Any, bucket: str, key: str) -> bytes:
        deadline_s = time.monotonic() + self._settings.total_timeout_s
        answer = client.get_object(Bucket=bucket, Key=key)
        with Body(self._settings.max_bytes) as body, closing(answer["Body"]) as stream:
            body.announce(answer.get("ContentLength"))
            for piece in stream.iter_chunks(S3_PIECE_BYTES):
                body.write(piece)
                if time.monotonic() > deadline_s:
                    raise FetchError(IngestReason.TIMEOUT, is_transient=True)
            return body.value()


def parse_s3_url(url: str, allowed_buckets: tuple[str, ...]) -> tuple[str, str]:
    """Bucket and key; records are untrusted, and the credentials may open more than they should.

    Raises:
        FetchError: `bad_url`, `s3_not_allowed`.
    """
    bucket, _, key = url.partition("://")[2].partition("/")  # a key is not quoted
    if not bucket or not key:
        raise FetchError(IngestReason.BAD_URL, "an S3 URL is s3://bucket/key")
    if bucket not in allowed_buckets:
        raise FetchError(IngestReason.S3_NOT_ALLOWED, "the bucket is not in ingest.s3_buckets")
    return bucket, key


def require_open_buckets(results: Iterable[tuple[str, str]]) -> None:
    """Refuse to book a closed or unreachable bucket as the loss of each of its objects.

    Args:
        results: URLs and the reasons of their failure, "" for those that arrived.

    Raises:
        WorldError: a bucket that gave no answer but refusals.
    """
    reasons: dict[str, set[str]] = {}
    for url, reason in results:
        if scheme_of(url) == "s3":
            reasons.setdefault(bucket_of(url), set()).add(reason)
    for bucket, found in reasons.items():
        if found and found <= WORLDLY:
            raise _our_fault(bucket, f"every object ended in {' or '.join(sorted(found))}")


def _our_fault(bucket: str, what: str) -> WorldError:
    return WorldError(
        f"ingest: the bucket {bucket} cannot be read: {what}. Mend the credentials "
        "(AWS_ACCESS_KEY_ID, AWS_PROFILE, a role) or ingest.s3_endpoint, and start it again: "
        "what was received is kept"
    )


def failure_of(answer: Mapping[str, Any], bucket: str) -> FetchError | WorldError:
    """What an error of the store means for an object, or for the step."""
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    if code in OUR_CODES:
        return _our_fault(bucket, f"the store answers {code}")
    if code in MISSING_CODES:
        return FetchError(IngestReason.S3_MISSING, code)
    if code in DENIED_CODES:
        return FetchError(IngestReason.S3_DENIED, code)
    is_transient = status >= 500 or status in RETRIED_STATUS or code == "SlowDown"
    return FetchError(IngestReason.S3_ERROR, code, is_transient=is_transient)
