"""The same against a real MLflow server, which keeps the artifacts itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import pixclip
from components.registry.models import Reference, Registry, fetch
from components.registry.promotions import PROMOTE, promotion_entry
from tests.model_registry import World, empty_database

START_TIMEOUT_S = 90


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = tmp_path / "server" / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(empty_database().read_bytes())
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}",
               f"--backend-store-uri=sqlite:///{database}", "--workers=1",
               f"--artifacts-destination={tmp_path / 'server' / 'artifacts'}"]  # fmt: skip
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        log.close()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.mark.slow
def test_registering_promoting_and_fetching_work_on_a_server(tmp_path: Path, server: str) -> None:
    world = World(tmp_path, server)
    registration = world.candidate("a", num_right=30)
    registry = Registry(server)
    with promotion_entry(registry, "pixclip") as entry:
        entry.move(PROMOTE, registry.get(Reference("pixclip", "candidate")), "a test")
    folder = fetch("models:/pixclip@champion", tmp_path / "got", server)
    assert pixclip.load(folder).config.vision.width == 16
    told = json.loads((registration / "registration.json").read_text())
    assert told["version"] == "1"
