"""A small server that speaks the part of Kubeflow Pipelines' REST API (v2beta1) that is used."""

import cgi
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

API = "/apis/v2beta1"


AWAY = "AWAY"  # a state of a run that the server cannot tell


class KubeflowServer:
    """Pipelines with their versions, experiments and runs, in memory."""

    def __init__(self, states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")) -> None:
        self.pipelines: dict[str, list[dict[str, Any]]] = {}
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.states = list(states)

    def __enter__(self) -> "KubeflowServer":
        handler = type("Handler", (Handler,), {"kubeflow": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def add_version(self, pipeline: str, name: str, text: str) -> dict[str, Any]:
        spec, *platform = yaml.safe_load_all(text)
        versions = self.pipelines.setdefault(pipeline, [])
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(versions))
        version = {
            "pipeline_id": f"id-of-{pipeline}",
            "pipeline_version_id": f"{pipeline}-{len(versions)}",
            "display_name": name,
            "created_at": created.isoformat(),
            # As the real server answers where a platform's part is there.
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform}
            if platform
            else spec,
        }
        versions.append(version)
        return version


class Handler(BaseHTTPRequestHandler):
    """Answers kfp's own client."""

    kubeflow: KubeflowServer

    def do_GET(self) -> None:
        path, query = self._place()
        server = self.kubeflow
        if path == "/healthz":
            return self._answer({"multi_user": False})
        if path == "/pipelines":
            found = [name for name in server.pipelines if self._is_wanted(query, name)]
            ids = [{"pipeline_id": f"id-of-{n}", "display_name": n} for n in found]
            return self._answer({"pipelines": ids} if ids else {})
        if path.endswith("/versions"):
            name = path.split("/")[2].removeprefix("id-of-")
            assert query["sort_by"] == ["created_at desc"]
            newest = sorted(server.pipelines[name], key=lambda v: v["created_at"], reverse=True)
            return self._answer({"pipeline_versions": newest[: int(query["page_size"][0])]})
        if path == "/experiments":
            found = [e for e in server.experiments if self._is_wanted(query, e["display_name"])]
            return self._answer({"experiments": found} if found else {})
        if path.startswith("/runs/"):
            state = server.states.pop(0) if len(server.states) > 1 else server.states[0]
            if state == AWAY:
                return self._answer({"message": "the server is away"}, 502)
            return self._answer({"run_id": path.split("/")[2], "state": state})
        return self._answer({"message": f"no {path}"}, 404)

    def do_POST(self) -> None:
        path, query = self._place()
        server = self.kubeflow
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            text = self._uploaded()
            if path.endswith("version"):
                pipeline = query["pipelineid"][0].removeprefix("id-of-")
                return self._answer(server.add_version(pipeline, query["name"][0], text))
            name = query["name"][0]
            made = server.add_version(name, name, text)
            kept = {"created_at": made["created_at"], "display_name": name}
            return self._answer({"pipeline_id": f"id-of-{name}", **kept})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if path == "/experiments":
            server.experiments.append({**body, "experiment_id": f"e{len(server.experiments)}"})
            return self._answer(server.experiments[-1])
        if path == "/runs":
            server.runs.append({**body, "run_id": f"r{len(server.runs)}"})
            return self._answer(server.runs[-1])
        return self._answer({"message": f"no {path}"}, 404)

    def _place(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).removeprefix(API), parse_qs(parts.query)

    def _is_wanted(self, query: dict[str, list[str]], name: str) -> bool:
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        return predicate["key"] == "display_name" and predicate["stringValue"] == name

    def _uploaded(self) -> str:
        form = cgi.FieldStorage(self.rfile, self.headers, environ={"REQUEST_METHOD": "POST"})
        return str(form["uploadfile"].value.decode())

    def _answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
