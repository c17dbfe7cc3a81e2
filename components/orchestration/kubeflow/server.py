"""Pipelines on a Kubeflow server: bring one there as a new version, and run its newest one by name.

Everything is a plan, which a client carries out (`client.py`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from components.core.errors import InputError
from components.core.settings import merge, parse_settings
from components.core.step import load_step
from components.orchestration.kubeflow.checks import ADDRESS
from components.orchestration.kubeflow.client import (
    API,
    Ask,
    KubeflowError,
    Plan,
    RefusedError,
    Server,
    get,
    listed,
    patiently,
    post,
)
from components.orchestration.kubeflow.compile import check_step, stage_refused
from components.orchestration.kubeflow.runs import Run
from components.orchestration.plan import Overrides

EXPERIMENT = "pixclip"
NUM_RUNS = 100  # that are looked through for a pipeline's newest
PATIENCE_S = 120.0  # with a server that is away, while nothing runs yet
# What a pipeline is compiled for: its tasks and their accelerators.
COMPILED = ("recipe", "num_ranks")
PINNED = "resolve_data"  # the step whose settings say which version of the data a run takes
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on a server; `spec` is the compiled pipeline."""

    pipeline_id: str
    version_id: str
    name: str
    spec: Spec


def upload(server: Server, text: str, name: str, version: str) -> Plan[Version]:
    """Bring a compiled pipeline as a new version; the first version makes the pipeline.

    Raises:
        RefusedError: the server refused.
    """
    pipeline_id = yield from _pipeline_id(server, name)
    if pipeline_id is None:
        query = {"name": name, **_owner(server)}
        yield Ask("POST", f"{API}/pipelines/upload", query, upload=text.encode())
    else:
        query = {"name": version, "pipelineid": pipeline_id}
        yield Ask("POST", f"{API}/pipelines/upload_version", query, upload=text.encode())
    return (yield from find_version(server, name))


def find_version(server: Server, name: str, version: str = "") -> Plan[Version]:
    """A version of a pipeline by its name, or the newest one.

    Raises:
        KubeflowError: there is none; says what to do.
    """
    pipeline_id = yield from _pipeline_id(server, name)
    if pipeline_id is None:
        raise KubeflowError(
            f"{server.url} has no pipeline '{name}'; bring it there with "
            f"`pixclip pipeline upload {name} --host {server.url}`"
        )
    newest = {"page_size": "1", "sort_by": "created_at desc"}
    query = listed("display_name", version) if version else newest
    found = yield from patiently(get(f"/pipelines/{pipeline_id}/versions", query), PATIENCE_S)
    versions = found.get("pipeline_versions") or []
    if not versions:
        raise KubeflowError(f"pipeline '{name}' at {server.url} has no version {version}".rstrip())
    (one,) = versions
    spec = one["pipeline_spec"]
    return Version(
        pipeline_id,
        one["pipeline_version_id"],
        one["display_name"],
        spec.get("pipeline_spec", spec),  # beside it is what the platform gets
    )


def request(
    server: Server,
    version: Version,
    parameters: Mapping[str, Any],
    experiment: str = EXPERIMENT,
) -> Plan[dict[str, Any]]:
    """The body of the request for a run, without id and name; makes the experiment if need be."""
    config: dict[str, Any] = {"parameters": dict(parameters)}
    if server.pipeline_root:
        config["pipeline_root"] = server.pipeline_root
    body = {
        "experiment_id": (yield from _experiment_id(server, experiment)),
        "pipeline_version_reference": {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.version_id,
        },
        "runtime_config": config,
    }
    account = {"service_account": server.service_account} if server.service_account else {}
    return body | account


def requester(
    server: Server,
    name: str,
    parameters: Callable[[Spec], Mapping[str, Any]],
    *,
    version: str = "",
    experiment: str = EXPERIMENT,
) -> Callable[[], Plan[dict[str, Any]]]:
    """What `Runs.ensure` asks for the body of a request: a run of a pipeline by its name.

    Args:
        parameters: gives the run's parameters for the version that is there.
        version: its name; empty: the newest.
    """

    def ask() -> Plan[dict[str, Any]]:
        found = yield from find_version(server, name, version)
        own = parameters(found.spec)
        return (yield from request(server, found, own, experiment))

    return ask


def newest_run(server: Server, name: str) -> Plan[Run]:
    """The newest run of a pipeline.

    Raises:
        KubeflowError: there is none among the newest runs.
    """
    pipeline_id = yield from _pipeline_id(server, name)
    query = {"page_size": str(NUM_RUNS), "sort_by": "created_at desc", **_owner(server)}
    found = yield from patiently(get("/runs", query), PATIENCE_S)
    for run in found.get("runs") or []:
        reference = run.get("pipeline_version_reference") or {}
        if pipeline_id and reference.get("pipeline_id") == pipeline_id:
            whole: Run = yield from patiently(get(f"/runs/{run['run_id']}"), PATIENCE_S)
            return whole
    raise KubeflowError(
        f"{server.url}: none of the {NUM_RUNS} newest runs is one of '{name}'; name it with --run"
    )


def _pipeline_id(server: Server, name: str) -> Plan[str | None]:
    query = listed("display_name", name, server.namespace)
    found = yield from patiently(get("/pipelines", query), PATIENCE_S)
    pipelines = found.get("pipelines") or []
    return pipelines[0]["pipeline_id"] if pipelines else None


def _experiment_id(server: Server, name: str) -> Plan[str]:
    """An experiment by its name; two processes may make it at the same time."""
    for _ in range(2):
        query = listed("display_name", name, server.namespace)
        found = yield from patiently(get("/experiments", query), PATIENCE_S)
        if found.get("experiments"):
            return str(found["experiments"][0]["experiment_id"])
        try:
            made = yield from patiently(
                post("/experiments", {"display_name": name, **_owner(server)}), PATIENCE_S
            )
            return str(made["experiment_id"])
        except RefusedError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
    raise KubeflowError(f"experiment '{name}' is at {server.url}, and is not: is it archived?")


def _owner(server: Server) -> dict[str, str]:
    return {"namespace": server.namespace} if server.namespace else {}


def pinned_arguments(spec: Spec, overrides: Overrides) -> dict[str, str]:
    """As `changed_arguments`, with the commit that the data's branch or tag means at the moment.

    So the run takes one version of the data from its first task to its last, and Kubeflow's cache
    knows it again. A repository that only pods see is left to the run's first task.

    Raises:
        InputError: the repository does not answer here, or has no such branch or tag.
    """
    changed = changed_arguments(spec, overrides)
    known = spec["root"]["inputDefinitions"]["parameters"]
    if PINNED not in known:
        return changed
    settings = json.loads(changed.get(PINNED, known[PINNED]["defaultValue"]))
    step = load_step(PINNED)
    parsed = parse_settings(step, settings)
    if step.pin is None or not ADDRESS.match(settings.get("repository", "")):
        return changed
    own = merge(overrides.get(PINNED, {}), step.pin(parsed))
    return {**changed, **changed_arguments(spec, {PINNED: own})}


def changed_arguments(spec: Spec, overrides: Overrides) -> dict[str, str]:
    """The pipeline's parameters of which a setting changes: the version's own with the changes.

    Raises:
        InputError: the pipeline has no step of that name, or was compiled for another value.
        SettingsError: a setting is unknown or wrong; refused here, not at its task hours later.
    """
    known = spec["root"]["inputDefinitions"]["parameters"]
    strange = [step for step in overrides if step not in known]
    if strange:
        raise InputError(f"{strange[0]}: no such step; the pipeline's are {', '.join(known)}")
    defaults = {step: json.loads(known[step]["defaultValue"]) for step in overrides}
    changed = {step: merge(defaults[step], changes) for step, changes in overrides.items()}
    for step, settings in changed.items():
        for name in COMPILED:
            if settings.get(name) != defaults[step].get(name):
                raise InputError(
                    f"{step}.{name}: the pipeline there was compiled for "
                    f"{defaults[step].get(name)}, which decides its tasks and their accelerators; "
                    "upload it anew: `pixclip pipeline upload … --set "
                    f"{step}.{name}={settings[name]}`"
                )
        if settings.get("stage") != defaults[step].get("stage"):
            raise stage_refused(step)
        check_step(step, settings)
    return {step: json.dumps(settings) for step, settings in changed.items()}
