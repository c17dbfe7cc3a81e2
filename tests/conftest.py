"""What tests of several steps share."""

from collections.abc import Iterator

import pytest

from tests.s3_server import s3_server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server for the whole session; take a bucket of your own."""
    with s3_server() as endpoint:
        yield endpoint
