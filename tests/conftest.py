"""What tests of several steps share, and the order of the files."""

from collections.abc import Iterator

import pytest

from tests.s3_server import s3_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that in the end no worker is alone with one.

    Those that need images or the server of tests/cluster come later: `.ci/run` builds these beside.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    built = {item.path for item in items if item.get_closest_marker("docker")}
    built |= {item.path for item in items if "cluster" in item.path.parts}
    quick = [item for item in items if item.path not in slow | built]
    quick.sort(key=lambda item: item.path, reverse=True)  # training before core
    half = len(quick) // 2
    items[:] = [
        *(item for item in items if item.path in slow - built),
        *quick[:half],
        *(item for item in items if item.path in built),
        *quick[half:],
    ]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server for the whole session; take a bucket of your own."""
    with s3_server() as endpoint:
        yield endpoint
