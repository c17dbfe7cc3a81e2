"""A Docker engine for the tests of images, and the images of this very tree."""

import subprocess
from collections.abc import Callable
from functools import cache

import pytest

from tests.engine import build_module, docker_client

__all__ = ["build_module", "docker_client"]

Run = Callable[..., str]


@pytest.fixture(scope="session")
def image(docker_client, build_module) -> Callable[[str], str]:
    """Builds an image by the name of its target, once; gives the image's full name."""

    @cache
    def build(name: str) -> str:
        return build_module.build(docker_client, name)

    return build


@pytest.fixture(scope="session")
def run_in(docker_client, image) -> Run:
    """Runs a command in an image, as a careful cluster does; gives what it prints.

    The root file system can only be read, and there is no network.
    """

    def run(name: str, *command: str, options: tuple[str, ...] = ()) -> str:
        done = subprocess.run(
            [docker_client, "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp",
             "--env=HOME=/tmp", "--cap-drop=ALL", *options, image(name), *command],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
