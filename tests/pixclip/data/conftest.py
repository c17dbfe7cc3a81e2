import pytest

from tests.pixclip.data.world import some_scenes, write_longgrit


@pytest.fixture(scope="session")
def scenes():
    return some_scenes()


@pytest.fixture(scope="session")
def longgrit(scenes, tmp_path_factory):
    """Ten scenes, 23 regions, four shards."""
    return write_longgrit(tmp_path_factory.mktemp("longgrit"), scenes)
