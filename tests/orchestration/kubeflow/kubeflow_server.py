"""A Kubeflow Pipelines server in memory, after its API's description, that can be made to fail.

As the real one it makes a run's Workflow before the row that its API shows, takes the run's id from
the request, terminates in the row before the Workflow, and removes Workflows that have no row after
a time. Workflows are counted apart from rows. Every request and answer is checked with the
description (`kfp-api.json`: the used part of KFP 2.17's); `violations` says what did not fit.
"""

import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import yaml

API = "/apis/v2beta1"
DESCRIPTION = json.loads(Path(__file__).with_name("kfp-api.json").read_text())
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
CANCELING_LOOKS = 3  # at a run that is being cancelled, before it is
NOT_RUNNING = "Failed to terminate a run {}. Row not found"
CODES = {400: 3, 401: 16, 404: 5, 405: 12, 409: 6, 500: 13, 502: 14, 503: 14}


@dataclass
class Fault:
    """What goes wrong with an operation.

    Args:
        kind: `refused` and `away`: nothing is done; the answer is 500, the connection is dropped.
            `between`: the Workflow is made, never its row; 500.
            `late`: the Workflow is made, its row after `seconds`; the connection is dropped.
            `after`, `dropped`, `slow`: all is done; 502, a dropped connection, an answer after
            `seconds`.
            `restart`: nothing is done, and nobody listens for `seconds`.
            `crash`: the Workflow is made, then as `restart`.
        operation: of the API.
        times: how often.
    """

    kind: str
    operation: str = "CreateRun"
    times: int = 1
    seconds: float = 0.0


@dataclass
class Workflow:
    """What runs in the cluster."""

    run_id: str
    made: float
    is_live: bool = True


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class DroppedError(Exception):
    """The connection ends without an answer."""


@dataclass
class KubeflowServer:
    """Pipelines with their versions, experiments, runs, Workflows; ends when the `with` ends.

    Args:
        outcome: the state in which runs end, after two looks at them; empty: they go on.
        token: what the requests must carry; empty: nothing.
        grace_s: after which a Workflow without a row is removed.
        chooses_ids: whether it makes ids of its own, as its description says.
    """

    outcome: str = ""
    token: str = ""
    grace_s: float = 0.5
    chooses_ids: bool = False
    faults: list[Fault] = field(default_factory=list)
    pipelines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    workflows: list[Workflow] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    task_details: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def __enter__(self) -> "KubeflowServer":
        self._lock = threading.RLock()
        self._timers: list[threading.Timer] = []
        self._looks: dict[str, int] = {}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        self._http.shutdown()
        self._http.server_close()

    def _listen(self) -> None:
        handler = type("Handler", (Handler,), {"kubeflow": self})
        self._http = Http(("127.0.0.1", self.port), handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def restart(self, seconds: float) -> None:
        """Nobody listens for some seconds; what was kept is there again."""
        old = self._http
        threading.Thread(target=self._away, args=(old, seconds), daemon=True).start()

    def _away(self, old: "Http", seconds: float) -> None:
        old.shutdown()
        old.server_close()
        time.sleep(seconds)
        self._listen()

    @property
    def live_workflows(self) -> list[Workflow]:
        """What runs in the cluster, after the server has removed what has no row."""
        with self._lock:
            now = time.monotonic()
            for workflow in self.workflows:
                if workflow.run_id not in self.runs and now - workflow.made > self.grace_s:
                    workflow.is_live = False
            return [workflow for workflow in self.workflows if workflow.is_live]

    @property
    def live_rows(self) -> list[dict[str, Any]]:
        """The runs that have not ended, as the API shows them."""
        with self._lock:
            return [run for run in self.runs.values() if run["state"] not in ENDED]

    def end(self, run_id: str, state: str) -> None:
        """Let a run end."""
        with self._lock:
            self.runs[run_id].update(state=state, finished_at=now())
            for workflow in self.workflows:
                workflow.is_live &= workflow.run_id != run_id

    def add_version(self, pipeline: str, name: str, text: str) -> dict[str, Any]:
        """A version as the upload makes it."""
        spec, *platform = yaml.safe_load_all(text)
        versions = self.pipelines.setdefault(pipeline, [])
        version = {
            "pipeline_id": f"id-of-{pipeline}",
            "pipeline_version_id": f"{pipeline}-{len(versions)}",
            "display_name": name,
            "name": name,
            "created_at": f"2026-01-01T00:{len(versions) // 60:02}:{len(versions) % 60:02}Z",
            # As the real server answers where a platform's part is there.
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]}
            if platform
            else spec,
        }
        versions.append(version)
        return version

    # The operations of the API

    def answer(
        self, operation: str, names: dict[str, str], query: dict[str, str], body: Any
    ) -> Any:
        """Do what is asked, or fail as was wanted."""
        with self._lock:
            self.asked.append(operation)
            fault = next((f for f in self.faults if f.operation == operation and f.times), None)
            if fault:
                fault.times -= 1
                return self._fail(fault, operation, names, query, body)
            return self._do(operation, names, query, body)

    def _do(self, operation: str, *asked: Any) -> Any:
        return getattr(self, "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower())(*asked)

    def _fail(
        self, fault: Fault, operation: str, names: dict[str, str], query: dict[str, str], body: Any
    ) -> Any:
        kind = fault.kind
        if kind == "refused":
            raise RefusedError(500, "Internal Server Error")
        if kind in ("between", "crash"):
            self.workflows.append(Workflow(body["run_id"], time.monotonic()))
        if kind in ("restart", "crash"):
            self.restart(fault.seconds)
        if kind == "between":
            raise RefusedError(500, "Failed to create a run")
        if kind in ("away", "restart", "crash"):
            raise DroppedError
        if kind == "late":
            self.workflows.append(Workflow(body["run_id"], time.monotonic()))
            timer = threading.Timer(fault.seconds, self._insert, (body["run_id"], body))
            self._timers.append(timer)
            timer.start()
            raise DroppedError
        done = self._do(operation, names, query, body)
        if kind == "after":
            raise RefusedError(502, "Bad Gateway")
        if kind == "dropped":
            raise DroppedError
        assert kind == "slow", kind
        return Late(done, fault.seconds)

    def _get_healthz(self, *_: Any) -> Any:
        return {"multi_user": False}

    def _list_pipelines(self, _: Any, query: dict[str, str], __: Any) -> Any:
        rows = [pipeline_of(name, versions) for name, versions in self.pipelines.items()]
        return page("pipelines", rows, query)

    def _get_pipeline(self, names: dict[str, str], *_: Any) -> Any:
        name = names["pipeline_id"].removeprefix("id-of-")
        return pipeline_of(name, self._versions(name))

    def _list_pipeline_versions(self, names: dict[str, str], query: dict[str, str], _: Any) -> Any:
        versions = self._versions(names["pipeline_id"].removeprefix("id-of-"))
        return page("pipeline_versions", versions, query)

    def _get_pipeline_version(self, names: dict[str, str], *_: Any) -> Any:
        versions = self._versions(names["pipeline_id"].removeprefix("id-of-"))
        return one(versions, "pipeline_version_id", names["pipeline_version_id"])

    def _versions(self, name: str) -> list[dict[str, Any]]:
        if name not in self.pipelines:
            raise RefusedError(404, f"Pipeline {name} not found")
        return self.pipelines[name]

    def _upload_pipeline(self, _: Any, query: dict[str, str], text: str) -> Any:
        name = query.get("name") or "pipeline.yaml"
        if name in self.pipelines:
            raise RefusedError(409, "Failed to create a pipeline and a pipeline version")
        return pipeline_of(name, [self.add_version(name, name, text)])

    def _upload_pipeline_version(self, _: Any, query: dict[str, str], text: str) -> Any:
        name = query.get("pipelineid", "").removeprefix("id-of-")
        if name not in self.pipelines:
            raise RefusedError(400, "Failed to create a pipeline version")
        return self.add_version(name, query.get("name") or "pipeline.yaml", text)

    def _list_experiments(self, _: Any, query: dict[str, str], __: Any) -> Any:
        return page("experiments", self.experiments, query)

    def _get_experiment(self, names: dict[str, str], *_: Any) -> Any:
        return one(self.experiments, "experiment_id", names["experiment_id"])

    def _create_experiment(self, _: Any, __: Any, body: Any) -> Any:
        name = body.get("display_name")
        if not name:
            raise RefusedError(400, "Experiment name is empty")
        if any(known["display_name"] == name for known in self.experiments):
            raise RefusedError(409, "Already exist")
        number = {"experiment_id": f"e{len(self.experiments)}", "created_at": now()}
        self.experiments.append({"display_name": name, **number, "storage_state": "AVAILABLE"})
        return self.experiments[-1]

    def _list_runs(self, _: Any, query: dict[str, str], __: Any) -> Any:
        return page("runs", list(self.runs.values()), query)

    def _create_run(self, _: Any, __: Any, body: Any) -> Any:
        reference = body.get("pipeline_version_reference")
        if not body.get("display_name") or not (reference or body.get("pipeline_spec")):
            raise RefusedError(400, "Run name and pipeline cannot be empty")
        if reference:
            versions = self._versions(reference.get("pipeline_id", "").removeprefix("id-of-"))
            wanted = reference.get("pipeline_version_id")
            if wanted:
                one(versions, "pipeline_version_id", wanted)
        is_new = self.chooses_ids or not body.get("run_id")
        run_id = str(uuid.uuid4()) if is_new else body["run_id"]
        self.workflows.append(Workflow(run_id, time.monotonic()))
        if run_id in self.runs:
            raise RefusedError(500, "Failed to create a run: duplicate entry")
        return self._insert(run_id, body)

    def _insert(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            own = {"run_id": run_id, "state": "PENDING", "created_at": now()}
            self.runs[run_id] = {"experiment_id": "e0", **body, **own, "storage_state": "AVAILABLE"}
            return self.runs[run_id]

    def _get_run(self, names: dict[str, str], *_: Any) -> Any:
        run = self._run(names)
        shown = dict(run)
        if self.task_details:
            shown["run_details"] = {"task_details": self.task_details}
        following = {"PENDING": "RUNNING", "RUNNING": self.outcome, "CANCELING": "CANCELED"}
        state = following.get(run["state"])
        if state == "CANCELED" and self._looks.setdefault(run["run_id"], CANCELING_LOOKS):
            self._looks[run["run_id"]] -= 1
        elif state in ENDED:
            self.end(run["run_id"], state)
        elif state:
            run["state"] = state
        return shown

    def _terminate_run(self, names: dict[str, str], *_: Any) -> Any:
        run = self._run(names)
        if run["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            raise RefusedError(400, NOT_RUNNING.format(run["run_id"]))
        run["state"] = "CANCELING"
        return {}

    def _retry_run(self, names: dict[str, str], *_: Any) -> Any:
        run = self._run(names)
        if run["state"] != "FAILED":
            raise RefusedError(400, "Only failed runs can be retried")
        run["state"] = "PENDING"
        self.workflows.append(Workflow(run["run_id"], time.monotonic()))
        return {}

    def _run(self, names: dict[str, str]) -> dict[str, Any]:
        if names["run_id"] not in self.runs:
            raise RefusedError(404, f"Run {names['run_id']} not found")
        return self.runs[names["run_id"]]


@dataclass
class Late:
    """An answer that takes its time."""

    content: Any
    seconds: float


class Http(ThreadingHTTPServer):
    """Forgets its connections when it is closed."""

    daemon_threads = True
    block_on_close = False


class Handler(BaseHTTPRequestHandler):
    """Finds the operation of a request, and writes its answer."""

    kubeflow: KubeflowServer

    def _serve(self) -> None:
        status, content, kind = 200, b"", "application/json"
        operation: dict[str, Any] = {}
        try:
            parts = urlsplit(self.path)
            path, query = unquote(parts.path), {k: v[0] for k, v in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._check_token()
            if path.startswith("/apis/v1alpha1/runs/") and path.endswith("/log"):
                content, kind = self._log(path), "text/plain"
            else:
                operation, names = operation_of(self.command, path)
                told = self._told(operation, names, query, body)
                content = json.dumps(told).encode()
                self._check(operation, told, "200")
        except DroppedError:
            self.close_connection = True
            return
        except RefusedError as error:
            status = error.status
            told = {"code": CODES[status], "message": error.message, "details": []}
            content = json.dumps(told).encode()
            if operation:
                self._check(operation, told, "default")
        self._write(status, content, kind)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = do_TRACE = do_OPTIONS = _serve

    def _told(
        self, operation: dict[str, Any], names: dict[str, str], query: dict[str, str], body: bytes
    ) -> Any:
        name = operation["operationId"].rpartition("_")[2]
        told = self.kubeflow.answer(name, names, query, self._body(operation, body))
        if isinstance(told, Late):
            time.sleep(told.seconds)
            return told.content
        return told

    def _body(self, operation: dict[str, Any], body: bytes) -> Any:
        wanted = [p for p in operation.get("parameters", []) if p["in"] in ("body", "formData")]
        if not wanted:
            return None
        if wanted[0]["in"] == "formData":
            return uploaded(self.headers["Content-Type"] or "", body)
        try:
            content = json.loads(body)
            validate(wanted[0]["schema"], content)
        except ValueError as error:
            raise RefusedError(400, f"invalid request: {error}") from error
        return content

    def _check(self, operation: dict[str, Any], told: Any, status: str) -> None:
        try:
            validate(operation["responses"][status]["schema"], told)
        except ValueError as error:
            self.kubeflow.violations.append(f"{operation['operationId']}: {error}")

    def _check_token(self) -> None:
        wanted = self.kubeflow.token
        if wanted and self.headers.get("Authorization") != f"Bearer {wanted}":
            raise RefusedError(401, "Request header error: there is no user identity header")

    def _log(self, path: str) -> bytes:
        # As the real server: 200 before it has looked for the pod.
        pod = path.split("/")[6]
        missing = json.dumps({"error_message": f"Failed to read logs from pod {pod}"})
        return self.kubeflow.logs.get(pod, missing).encode()

    def _write(self, status: int, content: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def operation_of(method: str, path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The operation of a request, and the names in its path.

    Raises:
        RefusedError: the description has none.
    """
    by_detail = sorted(DESCRIPTION["paths"].items(), key=lambda i: ("{" in i[0], ":" not in i[0]))
    for template, methods in by_detail:
        names = names_in(template, path)
        if names is not None:
            if method.lower() not in methods:
                raise RefusedError(405, f"{method} is not served")
            return methods[method.lower()], names
    raise RefusedError(404, "Not Found")


def names_in(template: str, path: str) -> dict[str, str] | None:
    """The values of a path's names, None if it is another path."""
    wanted, verb = template.split(":")[0].split("/"), template.partition(":")[2]
    own, _, own_verb = path.partition(":") if verb else (path, "", "")
    given = own.split("/")
    if len(given) != len(wanted) or own_verb != verb:
        return None
    names = {}
    for word, value in zip(wanted, given, strict=True):
        if word.startswith("{"):
            names[word.strip("{}")] = value
        elif word != value:
            return None
    return names


def validate(schema: dict[str, Any], content: Any) -> None:
    """Compare with the description, in which every name is known.

    Raises:
        ValueError: says what does not fit.
    """
    whole = {**closed(schema), "definitions": closed(DESCRIPTION["definitions"])}
    try:
        jsonschema.Draft4Validator(whole).validate(content)
    except jsonschema.ValidationError as error:
        raise ValueError(f"{error.json_path}: {error.message[:200]}") from None


def closed(schema: Any) -> Any:
    """A schema in which objects have no other fields than those that it names."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        inner.setdefault("additionalProperties", "@type" in schema["properties"])
    return inner


def page(key: str, rows: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """A page of a list: filtered by equal fields, the newest first if that is asked."""
    try:
        size = int(query.get("page_size") or 20)
        asked = json.loads(query.get("filter") or "{}").get("predicates", [])
        wanted = {p["key"]: p.get("string_value", p.get("stringValue")) for p in asked}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise RefusedError(400, "Invalid list options") from None
    if size < 0:
        raise RefusedError(400, "The page size should be greater than 0")
    found = [row for row in rows if all(row.get(name) == text for name, text in wanted.items())]
    if query.get("sort_by", "").endswith("desc"):
        found.sort(key=lambda row: str(row["created_at"]), reverse=True)
    return {key: found[: size or 20], "total_size": len(found)} if found else {}


def one(rows: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    """The row of a key.

    Raises:
        RefusedError: there is none.
    """
    for row in rows:
        if row[key] == value:
            return row
    raise RefusedError(404, f"{key} {value} not found")


def pipeline_of(name: str, versions: list[dict[str, Any]]) -> dict[str, Any]:
    """A pipeline as the API shows it."""
    created = versions[0]["created_at"]
    return {
        "pipeline_id": f"id-of-{name}",
        "display_name": name,
        "name": name,
        "created_at": created,
    }


def uploaded(content_type: str, body: bytes) -> str:
    """The file of a form.

    Raises:
        RefusedError: there is none, or it is no pipeline.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    parts = message.iter_parts() if message.is_multipart() else []
    for part in parts:
        if part.get_param("name", header="content-disposition") == "uploadfile":
            text = cast("bytes", part.get_payload(decode=True) or b"").decode(errors="replace")
            try:
                specs = list(yaml.safe_load_all(text))
            except yaml.YAMLError:
                specs = []
            if specs and isinstance(specs[0], dict):
                return text
    raise RefusedError(400, "Failed to read a pipeline spec file")


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
