"""A Kubeflow Trainer job (`TrainJob`, API trainer.kubeflow.org/v1alpha1) as a dictionary.

Its pods run torchrun with the variables PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and so on, which
Trainer gives them, so the command names no address. What all jobs share stands in the
ClusterTrainingRuntime of `deploy/base/runtime.yaml`; a job adds what the cluster file says of its
step. Nothing here talks to a cluster: `nodes.py` does.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.digests import sha256_text
from components.core.errors import InputError, SettingsError
from components.core.settings import texts_in

VARIABLE = "PIXCLIP_TRAINJOB"  # a JobPlace as JSON: a step with it runs its ranks on nodes
RUN_VARIABLE = "PIXCLIP_KFP_RUN_ID"  # the pipeline's run, which cancelling it goes by
API, VERSION = "trainer.kubeflow.org", "v1alpha1"
MANAGER = "pixclip.dev/driver"  # whose part of a job's patches ours is
OURS = {"app.kubernetes.io/managed-by": "pixclip"}
RUN_LABEL, STEP_LABEL = "pixclip.dev/run", "pixclip.dev/step"
DIGEST, SEEN = "pixclip.dev/spec-sha256", "pixclip.dev/driver-seen"
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
NODE = "node"  # Trainer's name of the job, and of its container, that holds the ranks
# After SIGTERM a node has `terminationGracePeriodSeconds` of the runtime (180) until it is killed.
SHUTDOWN_S = 150
RESERVED = "PET_"  # names of variables that are Trainer's; its webhook refuses them


class JobPlace(BaseModel):
    """Where the ranks of a step run, as the cluster file says; equal for all jobs of a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    image: str
    num_nodes: int = Field(ge=1)
    runtime: str
    state_claim: str
    state_path: str  # where the claim is mounted, in the driver and on the nodes
    namespace: str = ""  # empty: the driver's own
    queue: str = ""  # of Kueue
    priority: str = ""  # class of Kueue
    cpu: str = "16"
    memory: str = "96Gi"
    accelerator: str = "nvidia.com/gpu"
    num_accelerators: int = Field(0, ge=0)  # of a node
    shared_memory: str = "16Gi"
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    environment: dict[str, str] = {}
    secrets: dict[str, tuple[str, str]] = {}  # variable -> name and key of a secret
    image_pull_secret: str = ""


def job_place(environment: Mapping[str, str]) -> JobPlace | None:
    """Where ranks run by the environment's `PIXCLIP_TRAINJOB`; None for this machine.

    Raises:
        SettingsError: the variable holds no such place.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    try:
        return JobPlace.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"{VARIABLE}: {where}: {first['msg']}; compile the pipeline anew"
        ) from None


@dataclass(frozen=True)
class Ranks:
    """What is to run: a module that takes `--job`, on so many processes of all nodes together."""

    module: str
    job: Path
    num_ranks: int


def make_trainjob(ranks: Ranks, place: JobPlace) -> dict[str, Any]:
    """The TrainJob of some ranks.

    Its name is decided by the work (module and path of the job's file, below a folder named by the
    step's inputs and settings), and an annotation has the digest of all else.

    Raises:
        SettingsError: the ranks cannot be dealt out to the nodes.
        InputError: the job names a file that the nodes do not see.
    """
    if ranks.num_ranks % place.num_nodes:
        raise SettingsError(
            f"{place.step}.num_ranks={ranks.num_ranks} must be a multiple of the {place.num_nodes} "
            f"nodes that the cluster file gives it (nodes.{place.step})"
        )
    content = ranks.job.read_text(encoding="utf-8")
    require_shared(json.loads(content), place)
    spec = _spec(ranks, place)
    work = json.dumps([place.state_claim, ranks.module, str(ranks.job)])
    run = os.environ.get(RUN_VARIABLE, "")
    labels = {**OURS, STEP_LABEL: place.step, RUN_LABEL: run}
    labels |= {QUEUE_LABEL: place.queue, PRIORITY_LABEL: place.priority}
    return {
        "apiVersion": f"{API}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": f"pixclip-{place.step.replace('_', '-')}-{sha256_text(work)[:16]}",
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {DIGEST: sha256_text(json.dumps([spec, content], sort_keys=True))},
        },
        "spec": spec,
    }


def _spec(ranks: Ranks, place: JobPlace) -> dict[str, Any]:
    num_local = ranks.num_ranks // place.num_nodes
    gpus = {place.accelerator: str(place.num_accelerators)} if place.num_accelerators else {}
    return {
        "runtimeRef": {"name": place.runtime, "kind": "ClusterTrainingRuntime", "apiGroup": API},
        "trainer": {
            "image": place.image,
            "command": ["torchrun", "--shutdown-timeout", str(SHUTDOWN_S)],
            "args": ["-m", ranks.module, "--job", str(ranks.job)],
            "numNodes": place.num_nodes,
            "numProcPerNode": num_local,
            "env": list(_environment(place, num_local)),
            "resourcesPerNode": {
                "requests": {"cpu": place.cpu, "memory": place.memory, **gpus},
                "limits": {"memory": place.memory, **gpus},
            },
        },
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _patch(place)}],
    }


def _environment(place: JobPlace, num_local: int) -> Iterator[dict[str, Any]]:
    threads = int(place.cpu) // num_local if place.cpu.isdigit() else 1  # "500m" is less than one
    own = {"OMP_NUM_THREADS": str(max(1, threads)), **place.environment}
    for name, value in sorted(own.items()):
        yield {"name": name, "value": value}
    for name, (secret, key) in sorted(place.secrets.items()):
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _patch(place: JobPlace) -> dict[str, Any]:
    """What the pods of the nodes get beside the runtime's: pool, claim, shared memory."""
    memory = {"medium": "Memory", "sizeLimit": place.shared_memory}
    pod: dict[str, Any] = {
        "volumes": [
            {"name": "shared-memory", "emptyDir": memory},
            {"name": "state", "persistentVolumeClaim": {"claimName": place.state_claim}},
        ],
    }
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    if place.tolerations:
        pod["tolerations"] = [dict(one) for one in place.tolerations]
    if place.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": place.image_pull_secret}]
    nodes = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [nodes]}}}


def require_shared(job: object, place: JobPlace) -> None:
    """Refuse a job that names a file here which the nodes do not see.

    Raises:
        InputError: names the file.
    """
    for text in texts_in(job):
        path = Path(text)
        if "/" in text and path.exists() and not path.is_relative_to(place.state_path):
            raise InputError(
                f"{place.step} runs on other nodes, which share {place.state_path} with this one "
                f"(the claim {place.state_claim}), and {path} lies elsewhere; bring it there, or "
                f"take {place.step} out of `nodes` in the cluster file"
            )
