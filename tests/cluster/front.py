"""An API server's front: it adds the pods of `trainer.py` and their logs, and can lose answers."""

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.cluster.api_server import write_kubeconfig
from tests.cluster.trainer import Pod, Trainer

PODS = "/api/v1/namespaces/default/pods"


class Front:
    """What the front is to do wrong, and what it was asked."""

    def __init__(self, behind: str, trainer: Trainer | None) -> None:
        self.behind, self.trainer = behind, trainer
        self.asked: list[str] = []  # methods with paths
        self.lost: list[str] = []  # methods whose next answer is lost after the server has acted
        self.failed: list[int] = []  # statuses of the next answers, and the server knows nothing


@contextmanager
def front(kubeconfig: Path, trainer: Trainer | None = None) -> Iterator[tuple[Front, Path]]:
    """Serve the front of a kubeconfig's server; gives it and a kubeconfig of its own."""
    behind = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    told = Front(behind, trainer)
    handler = type("Handler", (_Handler,), {"front": told})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        path = kubeconfig.with_name(f"front-{server.server_port}")
        yield told, write_kubeconfig(path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        self.front.asked.append(f"{self.command} {self.path}")
        if self.front.failed:
            return self._answer(self.front.failed.pop(0), b'{"message": "as the test wants it"}')
        if self.path.startswith(PODS) and self.front.trainer:
            return self._answer(200, self._pods(self.front.trainer))
        status, content = self._behind(body)
        if self.command in self.front.lost:
            self.front.lost.remove(self.command)
            self.close_connection = True
            return None
        return self._answer(status, content)

    do_GET = do_POST = do_PATCH = do_DELETE = do

    def _behind(self, body: bytes | None) -> tuple[int, bytes]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        kind = self.headers.get("Content-Type")
        request = urllib.request.Request(
            self.front.behind + self.path,
            data=body,
            method=self.command,
            headers={"Content-Type": kind} if kind else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def _pods(self, trainer: Trainer) -> bytes:
        asked = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if asked.path == PODS:
            selector = dict(one.split("=") for one in query["labelSelector"].split(","))
            return json.dumps({"kind": "PodList", "items": _items(trainer, selector)}).encode()
        name = asked.path.removeprefix(f"{PODS}/").removesuffix("/log")
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        lines = next(pod.lines for pod in trainer.pods() if pod.name == name)
        new = [f"{time.isoformat()} {text}" for time, text in lines if time >= since]
        return "\n".join(new).encode()

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        is_json = content.startswith((b"{", b"["))
        self.send_header("Content-Type", "application/json" if is_json else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""


def _items(trainer: Trainer, selector: dict[str, str]) -> list[dict[str, Any]]:
    number = int(selector["batch.kubernetes.io/job-completion-index"])
    job = selector["jobset.sigs.k8s.io/jobset-name"]
    return [_item(pod) for pod in trainer.pods() if (pod.job, pod.number) == (job, number)]


def _item(pod: Pod) -> dict[str, Any]:
    return {"metadata": {"name": pod.name, "creationTimestamp": pod.created.isoformat()}}
