"""Fetch s3:// URLs with boto3, from buckets that the settings name."""

import time
from contextlib import closing
from typing import Any

from components.ingest.body import Body
from components.ingest.failures import FetchError
from components.ingest.settings import IngestSettings

PIECE_BYTES = 2**18
MISSING_CODES = frozenset({"404", "NoSuchKey", "NoSuchBucket"})
DENIED_CODES = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId"})


class S3Source:
    """Fetches objects; usable from many threads."""

    def __init__(self, settings: IngestSettings) -> None:
        import boto3
        from botocore.config import Config

        self._settings = settings
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint or None,
            config=Config(
                connect_timeout=settings.connect_timeout_s,
                read_timeout=settings.read_timeout_s,
                retries={"total_max_attempts": 1},  # ingest retries by its own rules
                max_pool_connections=settings.concurrency,
            ),
        )

    def fetch(self, url: str) -> bytes:
        """The object behind `s3://bucket/key`.

        Raises:
            FetchError: why there is none.
        """
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        bucket, key = parse_s3_url(url, self._settings.s3_buckets)
        try:
            return self._read(bucket, key)
        except exceptions.ClientError as error:
            raise _from_code(str(error.response.get("Error", {}).get("Code", ""))) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError, HTTPError) as error:
            raise FetchError("s3_unreachable", type(error).__name__, is_transient=True) from error
        except exceptions.BotoCoreError as error:
            raise FetchError("s3_error", type(error).__name__, is_transient=True) from error

    def _read(self, bucket: str, key: str) -> bytes:
        deadline_s = time.monotonic() + self._settings.total_timeout_s
        answer = self._client.get_object(Bucket=bucket, Key=key)
        with Body(self._settings.max_bytes) as body, closing(answer["Body"]) as stream:
            body.announce(answer.get("ContentLength"))
            for piece in stream.iter_chunks(PIECE_BYTES):
                body.write(piece)
                if time.monotonic() > deadline_s:
                    raise FetchError("timeout", is_transient=True)
            return body.value()


def parse_s3_url(url: str, allowed_buckets: tuple[str, ...]) -> tuple[str, str]:
    """Bucket and key; records are untrusted, and the credentials may open more than they should.

    Raises:
        FetchError: `bad_url`, `s3_not_allowed`.
    """
    bucket, _, key = url.partition("://")[2].partition("/")  # a key is not quoted
    if not bucket or not key:
        raise FetchError("bad_url", "an S3 URL is s3://bucket/key")
    if bucket not in allowed_buckets:
        raise FetchError("s3_not_allowed", "the bucket is not in ingest.s3_buckets")
    return bucket, key


def _from_code(code: str) -> FetchError:
    if code in MISSING_CODES:
        return FetchError("s3_missing", code)
    if code in DENIED_CODES:
        return FetchError("s3_denied", code)
    return FetchError("s3_error", code, is_transient=True)
