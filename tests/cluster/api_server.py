"""A real Kubernetes API server for custom resources, with the definitions of Trainer and Kueue.

    with api_server(Path(".cache/crdserver")) as kubeconfig: ...

`build_api_server.sh` builds it once. It knows no pods, runs no controller and no webhook of the
definitions' makers. These, in `crds/`, are those of Kubeflow Trainer 2.3.0 and Kueue 0.15 (both
Apache-2.0) without the descriptions of fields.
"""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.process import end_with_parent
from tests.s3_server import free_ports

HERE = Path(__file__).parent
BUILD = HERE / "build_api_server.sh"
FOLDER = HERE.parents[1] / ".cache" / "crdserver"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
START_TIMEOUT_S = 60
CANNOT = 3  # exit code of the build: this machine has no means


def require_build() -> None:
    """Build the server, once for all; skip where this machine has no means."""
    if os.environ.get("PIXCLIP_CRDSERVER") == "skip":
        pytest.skip("PIXCLIP_CRDSERVER=skip: the API server for custom resources is not built")
    done = subprocess.run([str(BUILD), str(FOLDER)], capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """Start etcd and the server in an empty folder; gives the path of a kubeconfig."""
    require_build()
    client, peer, port = free_ports(3)
    etcd = [
        *(str(FOLDER / "bin" / "etcd"), "--data-dir", str(folder / "etcd"), "--log-level=error"),
        *(f"--listen-client-urls=http://127.0.0.1:{client}", "--unsafe-no-fsync"),
        *(f"--advertise-client-urls=http://127.0.0.1:{client}",),
        *(f"--listen-peer-urls=http://127.0.0.1:{peer}",),
        *(f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",),
        *(f"--initial-cluster=default=http://127.0.0.1:{peer}",),
    ]
    server = [
        *(str(FOLDER / "bin" / "crdserver"), f"--etcd-servers=http://127.0.0.1:{client}"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder / 'certs'}"),
    ]
    url = f"https://127.0.0.1:{port}"
    with _running(etcd, folder / "etcd.log"), _running(server, folder / "server.log"):
        _wait(url, folder / "server.log")
        for path in sorted((HERE / "crds").glob("*.json")):
            definition = json.loads(path.read_text())
            _asked(url + DEFINITIONS, definition)
            for version in definition["spec"]["versions"]:
                plural = definition["spec"]["names"]["plural"]
                _wait_for_kind(
                    f"{url}/apis/{definition['spec']['group']}/{version['name']}", plural
                )
        yield write_kubeconfig(folder / "kubeconfig", url, folder / "certs" / "apiserver.crt")


def write_kubeconfig(path: Path, url: str, certificate: Path | None = None) -> Path:
    """The kubeconfig of a server that nobody has to log in to."""
    cluster = {"server": url}
    if certificate:
        cluster["certificate-authority"] = str(certificate)
    context = {"cluster": "test", "user": "test", "namespace": "default"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "contexts": [{"name": "test", "context": context}],
        "users": [{"name": "test", "user": {"token": "nobody"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=log.parent, preexec_fn=end_with_parent
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _asked(url: str, body: object = None) -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return answer.read()


def _wait(url: str, log: Path) -> None:
    _until(
        lambda: _asked(f"{url}/readyz") == b"ok", lambda: log.read_text(errors="replace")[-2000:]
    )


def _wait_for_kind(url: str, plural: str) -> None:
    def is_served() -> bool:
        return any(one["name"] == plural for one in json.loads(_asked(url))["resources"])

    _until(is_served, lambda: f"{url} does not serve {plural}")


def _until(holds: Any, told: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the API server did not start:\n{told()}")
