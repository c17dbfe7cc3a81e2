"""A Docker engine, where one is reachable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
OWN_SOCKET = REPOSITORY / ".cache" / "engine" / "docker.sock"


@pytest.fixture(scope="session")
def build_module():
    """`images/build.py`, which is a script and in no package."""
    sys.path.insert(0, str(REPOSITORY / "images"))
    import build

    sys.path.remove(str(REPOSITORY / "images"))
    return build


@pytest.fixture(scope="session")
def docker_client(build_module):
    """A docker client whose engine answers; DOCKER_HOST is set for all processes of the session."""
    try:
        client = build_module.docker_client()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    hosts = [
        os.environ.get("DOCKER_HOST", ""),
        f"unix://{OWN_SOCKET}",
        "unix:///var/run/docker.sock",
    ]
    for host in filter(None, hosts):
        environment = {**os.environ, "DOCKER_HOST": host}
        told = subprocess.run([client, "version"], capture_output=True, env=environment)
        if told.returncode == 0:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DOCKER_HOST", host)
                yield client
            return
    pytest.skip("no Docker engine answers; `images/start-engine` starts one where that is possible")
