"""A double of Kubeflow Pipelines 2.17's driver and launcher, on containers and a real S3.

It does to a compiled pipeline what these two do, in their order, as far as our pipeline needs it
(backend/src/v2 of kubeflow/pipelines 2.17.0):

- driver: resolves inputs, looks into the cache (key: ids of input artifacts, parameters, outputs,
  program, name of the image, claims), decides the addresses of the outputs once for all attempts;
- launcher: downloads every input by its prefix, one object after another, before the command; runs
  it as a child that is told of no signal; uploads outputs, folders file by file, only after
  success; reads what the executor says of them, in JSON that knows no NaN;
- exit task: the final status is ML Metadata's word, without a message.

It knows no conditions, loops, importers, output parameters, and no DAG inside but the exit
handler's.
"""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

from tests.orchestration.kubeflow.double.pods import Pod, run_pod

BUCKET, ROOT = "mlpipeline", "v2/artifacts"
COMPLETE, CACHED, FAILED, OMITTED = "COMPLETE", "CACHED", "FAILED", "OMITTED"
RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
ADDRESS = f"s3://{BUCKET}/"


@dataclass
class TaskReport:
    """How a task ended, and what its launchers moved."""

    name: str
    state: str = ""
    attempts: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    log: str = ""


class Store:
    """The artifact store, which counts what goes through it."""

    def __init__(self, endpoint: str) -> None:
        self._s3 = boto3.client("s3", endpoint_url=endpoint)
        if BUCKET not in [bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"]]:
            self._s3.create_bucket(Bucket=BUCKET)

    def download(self, uri: str, root: Path) -> int:
        """Bring what lies at an address and below it; its bytes."""
        key, num_bytes = uri.removeprefix(ADDRESS), 0
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=key)
        for item in (item for page in pages for item in page.get("Contents", ())):
            if item["Key"] == key or item["Key"].startswith(f"{key}/"):
                target = local_path(f"{ADDRESS}{item['Key']}", root)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._s3.download_file(BUCKET, item["Key"], str(target))
                num_bytes += item["Size"]
        return num_bytes

    def upload(self, path: Path, uri: str) -> int:
        """Put a file, or every file of a folder; a link to a folder cannot be read."""
        if path.is_dir():
            assert not path.is_symlink(), f"uploadFile(): {path}: is a directory"
            return sum(self.upload(inner, f"{uri}/{inner.name}") for inner in path.iterdir())
        self._s3.upload_file(str(path), BUCKET, uri.removeprefix(ADDRESS))
        return path.stat().st_size


class Metadata:
    """ML Metadata: ids of artifacts, and what the cache knows; it outlives runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = json.loads(path.read_text()) if path.exists() else {"next": 1, "cache": {}}
        self._next, self._cache = known["next"], known["cache"]

    def cached(self, key: str) -> dict[str, Any] | None:
        """The outputs of an earlier task with the same key."""
        found: dict[str, Any] | None = self._cache.get(key)
        return found

    def record(self, outputs: Mapping[str, dict[str, Any]], key: str) -> None:
        """Give new artifacts their ids; with a key they can be found again."""
        for artifact in outputs.values():
            artifact["name"] = str(self._next)
            self._next += 1
        if key:
            self._cache[key] = dict(outputs)
        self._path.write_text(json.dumps({"next": self._next, "cache": self._cache}))


@dataclass
class Backend:
    """One installation: an artifact store, claims, secrets, and what its metadata remembers.

    `started` is told the name of each task, its attempt and its container, when that starts.
    """

    folder: Path
    endpoint: str
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    started: Callable[[str, int, Pod], None] = lambda name, attempt, pod: None

    def __post_init__(self) -> None:
        self.store, self.metadata = Store(self.endpoint), Metadata(self.folder / "mlmd.json")

    def claim(self, name: str) -> Path:
        """The folder of a persistent volume claim."""
        path = self.folder / "claims" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, text: str, parameters: Mapping[str, str]) -> "Run":
        """Run a compiled pipeline to its end."""
        run = Run(self, text, parameters)
        run.go()
        return run


class Run:
    """A run of a pipeline; `reports` has every task in the order of its end."""

    def __init__(self, backend: Backend, text: str, parameters: Mapping[str, str]) -> None:
        self.backend, self.id = backend, str(uuid.uuid4())
        self._spec, *platform = yaml.safe_load_all(text)
        self._platform = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._root = f"{ADDRESS}{ROOT}/{self._spec['pipelineInfo']['name']}/{self.id}"
        self._given = parameters
        self.reports: list[TaskReport] = []
        self.artifacts: dict[tuple[str, str], dict[str, Any]] = {}  # of task and output

    def report(self, name: str) -> TaskReport:
        """What is known of a task."""
        return next(report for report in self.reports if report.name == name)

    @property
    def bytes_moved(self) -> int:
        """What the launchers moved up and down."""
        return sum(report.bytes_down + report.bytes_up for report in self.reports)

    def states(self) -> dict[str, str]:
        """Task -> its state."""
        return {report.name: report.state for report in self.reports}

    def go(self) -> None:
        """All tasks in order, the exit task whatever happened."""
        root = self._spec["root"]
        defaults = root["inputDefinitions"]["parameters"]
        given = {key: about.get("defaultValue") for key, about in defaults.items()} | self._given
        states: dict[str, str] = {}
        for name in in_order(root["dag"]["tasks"]):
            task = root["dag"]["tasks"][name]
            component = self._spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                own = task.get("inputs", {}).get("parameters", {})
                inner = {key: self._value(value, given, {}) for key, value in own.items()}
                states[name] = self._dag(component["dag"]["tasks"], inner)
            else:
                states[name] = self._task(name, task, given, states)

    def _dag(self, tasks: Mapping[str, Any], given: Mapping[str, Any]) -> str:
        states: dict[str, str] = {}
        for name in in_order(tasks):
            before = [states[other] for other in tasks[name].get("dependentTasks", [])]
            if all(state in (COMPLETE, CACHED) for state in before):
                states[name] = self._task(name, tasks[name], given, states)
            else:
                states[name] = OMITTED
                self.reports.append(TaskReport(name, OMITTED))
        is_good = all(state in (COMPLETE, CACHED) for state in states.values())
        return COMPLETE if is_good else FAILED

    def _value(self, spec: Mapping[str, Any], given: Mapping[str, Any], states: Any) -> Any:
        if "componentInputParameter" in spec:
            return given[spec["componentInputParameter"]]
        if "taskFinalStatus" in spec:
            task = spec["taskFinalStatus"]["producerTask"]
            place = {"pipelineTaskName": task, "pipelineJobResourceName": "run-abcde"}
            return {"state": states[task], **place, "error": {}}
        return spec["runtimeValue"]["constant"]

    # --- driver -------------------------------------------------------------------------------

    def _task(
        self,
        name: str,
        task: Mapping[str, Any],
        given: Mapping[str, Any],
        states: Mapping[str, str],
    ) -> str:
        report = TaskReport(name)
        self.reports.append(report)
        component = self._spec["components"][task["componentRef"]["name"]]
        executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]][
            "container"
        ]
        kubernetes = self._platform.get(component["executorLabel"], {})
        inputs = task.get("inputs", {})
        parameters = {
            key: self._value(spec, given, states)
            for key, spec in inputs.get("parameters", {}).items()
        }
        artifacts = {}
        for key, source in inputs.get("artifacts", {}).items():
            of = source["taskOutputArtifact"]
            artifacts[key] = self.artifacts[of["producerTask"], of["outputArtifactKey"]]
        outputs = component.get("outputDefinitions", {}).get("artifacts", {})
        key = ""
        if task.get("cachingOptions", {}).get("enableCache"):
            key = cache_key(artifacts, parameters, outputs, executor, kubernetes)
            found = self.backend.metadata.cached(key)
            if found is not None:
                self._keep(name, found)
                report.state = CACHED
                return CACHED
        place = f"{self._root}/{name}/{uuid.uuid4()}"
        executor_input = {
            "inputs": {
                "parameterValues": with_defaults(parameters, component),
                "artifacts": {key: {"artifacts": [it]} for key, it in artifacts.items()},
            },
            "outputs": {
                "artifacts": {
                    output: {"artifacts": [new_artifact(output, about, f"{place}/{output}")]}
                    for output, about in outputs.items()
                },
                "outputFile": str(local_path(f"{place}/output_metadata.json", Path("/"))),
            },
        }
        policy, started = task.get("retryPolicy", {}), time.monotonic()
        for attempt in range(1 + int(policy.get("maxRetryCount", 0))):
            report.attempts += 1
            pod = self._pod(name, attempt, executor, kubernetes)
            new = self._launch(pod, executor, executor_input, report, attempt)
            report.seconds = round(time.monotonic() - started, 1)
            if new is not None:
                self.backend.metadata.record(new, key)
                self._keep(name, new)
                report.state = COMPLETE
                return COMPLETE
        report.state = FAILED
        return FAILED

    def _keep(self, task: str, outputs: Mapping[str, dict[str, Any]]) -> None:
        self.artifacts |= {(task, output): artifact for output, artifact in outputs.items()}

    def _pod(self, name: str, attempt: int, executor: Any, kubernetes: Any) -> Pod:
        environment = {item["name"]: item["value"] for item in executor.get("env", [])}
        for item in kubernetes.get("fieldPathAsEnv", []):
            assert item["fieldPath"] == RUN_ID_FIELD, item
            environment[item["name"]] = self.id
        for secret in kubernetes.get("secretAsEnv", []):
            held = self.backend.secrets[secret["secretName"]]
            for pair in secret["keyToEnv"]:
                environment[pair["envVar"]] = held[pair["secretKey"]]
        # The launcher would carry artifacts with these, as somebody else.
        assert not [key for key in environment if key.startswith("AWS_")], environment
        return Pod(
            name=f"{name}-{self.id[:8]}-{attempt}",
            image=executor["image"],
            root=self.backend.folder / "pods" / self.id / f"{name}-{attempt}",
            environment=environment,
            mounts={
                mount["mountPath"]: self.backend.claim(mount["constant"])
                for mount in kubernetes.get("pvcMount", [])
            },
            deadline_s=float(kubernetes.get("activeDeadlineSeconds", 0)) or None,
        )

    # --- launcher -----------------------------------------------------------------------------

    def _launch(
        self, pod: Pod, executor: Any, executor_input: Any, report: TaskReport, attempt: int
    ) -> dict[str, dict[str, Any]] | None:
        """The artifacts that a pod made; None if it failed."""
        pod.make_folders()
        for listed in executor_input["inputs"]["artifacts"].values():
            for artifact in listed["artifacts"]:
                assert artifact["uri"].startswith(ADDRESS), artifact
                report.bytes_down += self.backend.store.download(artifact["uri"], pod.root)
        outputs = executor_input["outputs"]["artifacts"]
        for listed in outputs.values():
            folder = local_path(listed["artifacts"][0]["uri"], pod.root).parent
            folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(executor_input)
        words = [word.replace("{{$}}", text) for word in executor["command"] + executor["args"]]
        self.backend.started(report.name, attempt, pod)
        is_good = run_pod(pod, words) == 0
        report.log = pod.log.read_text(errors="replace")
        if not is_good:
            return None
        told = Path(f"{pod.root}{executor_input['outputs']['outputFile']}")
        said = json.loads(told.read_text(), parse_constant=no_constant) if told.exists() else {}
        made = {}
        for output, listed in outputs.items():
            news = said.get("artifacts", {}).get(output, {}).get("artifacts", [{}])[0]
            artifact = {**listed["artifacts"][0], "metadata": news.get("metadata", {})}
            assert news.get("uri", artifact["uri"]) == artifact["uri"], "no recognized storage URI"
            path = local_path(artifact["uri"], pod.root)
            if path.exists():
                report.bytes_up += self.backend.store.upload(path, artifact["uri"])
            made[output] = artifact
        shutil.rmtree(pod.root)
        return made


def in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Tasks after those that they depend on."""
    done: list[str] = []
    while len(done) < len(tasks):
        done += [
            name
            for name, task in tasks.items()
            if name not in done and all(other in done for other in task.get("dependentTasks", []))
        ]
    return done


def cache_key(artifacts: Any, parameters: Any, outputs: Any, executor: Any, kubernetes: Any) -> str:
    """What Kubeflow's cache counts of a task."""
    claims = sorted(mount["constant"] for mount in kubernetes.get("pvcMount", []))
    ids = {key: artifact["name"] for key, artifact in artifacts.items()}
    program = executor["command"] + executor["args"]
    counted = [ids, parameters, outputs, program, executor["image"], claims]
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def with_defaults(parameters: Mapping[str, Any], component: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, and the component's own values of those that nobody gave."""
    known = component.get("inputDefinitions", {}).get("parameters", {})
    defaults = {key: it["defaultValue"] for key, it in known.items() if "defaultValue" in it}
    return {**defaults, **parameters}


def new_artifact(name: str, about: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """An output before its task has run."""
    return {"name": name, "uri": uri, "metadata": {}, "type": about["artifactType"]}


def local_path(uri: str, root: Path) -> Path:
    """Where a pod sees an address."""
    return root / "s3" / uri.removeprefix("s3://")


def no_constant(word: str) -> None:
    """Kubeflow's reader of the executor's JSON refuses NaN and infinity."""
    raise AssertionError(f"failed to unmarshall ExecutorOutput: invalid value {word}")
