"""What a cluster does with a TrainJob, as far as the ranks can tell: processes instead of pods.

`Trainer` follows the TrainJobs of a real API server as Kubeflow Trainer 2.3 (torch plugin), JobSet
(BlockingRecreate) and Kueue do together: nodes get PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK,
PET_MASTER_ADDR and PET_MASTER_PORT; one that fails restarts all; a suspended or deleted job's nodes
get SIGTERM and time; an object that is deleted in the foreground goes after its nodes.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config

from tests.s3_server import free_ports

ROOT = Path(__file__).parents[2]
WHERE = ("trainer.kubeflow.org", "v1alpha1", "default", "trainjobs")
QUEUE = "kueue.x-k8s.io/queue-name"
LOOK_S = 0.1


class Pod:
    """One node of a job: the container's command as a process, and what it prints."""

    def __init__(self, job: dict[str, Any], generation: int, number: int, port: int) -> None:
        trainer = job["spec"]["trainer"]
        self.job, self.number = job["metadata"]["name"], number
        self.name = f"{self.job}-node-0-{number}-{generation}"
        self.created = datetime.now(UTC)
        self.lines: list[tuple[datetime, str]] = []
        given = {one["name"]: one["value"] for one in trainer["env"]}
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'model'}",
            "HOME": os.environ.get("HOME", "/"),
            **given,
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(number),
            "PET_MASTER_ADDR": "127.0.0.1",  # in a cluster the name of node 0
            "PET_MASTER_PORT": str(port),
        }
        self.process = subprocess.Popen(
            [*trainer["command"], *trainer["args"]],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append((datetime.now(UTC), line.rstrip("\n")))

    def ranks(self) -> list[int]:
        """The process numbers of its ranks."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(number) for number in task.read_text().split()]
        except OSError:  # torchrun has ended
            return []


@dataclass
class Followed:
    """A job that is followed: its nodes of now, and how often they were started."""

    pods: list[Pod] = field(default_factory=list)
    num_starts: int = 0
    num_failures: int = 0
    told: tuple[str, int] = ("", -1)  # the condition and the number of ready nodes


class Trainer:
    """Follows TrainJobs in a thread; use it as a context manager."""

    def __init__(self, kubeconfig: Path, max_restarts: int = 2) -> None:
        self._api = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
        self._max_restarts = max_restarts
        self._is_over = threading.Event()
        self._jobs: dict[str, Followed] = {}  # by uid
        self.created: list[str] = []  # uids of all jobs there ever were
        self.is_queue_open = True

    def __enter__(self) -> "Trainer":
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()
        for pod in self.pods():
            for process in (pod.process.pid, *pod.ranks()):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            pod.process.wait()

    def jobs(self) -> list[dict[str, Any]]:
        """All TrainJobs there are."""
        return self._api.list_namespaced_custom_object(*WHERE)["items"]

    def pods(self) -> list[Pod]:
        """The nodes that run."""
        return [pod for one in list(self._jobs.values()) for pod in one.pods]

    def num_starts(self) -> int:
        """How often the nodes of all jobs were started together."""
        return sum(one.num_starts for one in self._jobs.values())

    def signal_ranks(self, number: signal.Signals) -> None:
        """Send a signal to all ranks, e.g. SIGSTOP, so that no step is made meanwhile."""
        for pod in self.pods():
            for rank in pod.ranks():
                os.kill(rank, number)

    def _follow(self) -> None:
        while not self._is_over.wait(LOOK_S):
            for job in self.jobs():
                with suppress(client.ApiException):  # changed in between: looked at again
                    self._reconcile(job)

    def _reconcile(self, job: dict[str, Any]) -> None:
        uid = job["metadata"]["uid"]
        followed = self._jobs.setdefault(uid, Followed())
        if uid not in self.created:
            self.created.append(uid)
        if "deletionTimestamp" in job["metadata"]:
            self._stop(followed)
            self._patch(job, {"metadata": {"finalizers": None}})
        elif any(c["type"] in ("Complete", "Failed") for c in _conditions(job)):
            return
        elif QUEUE in job["metadata"].get("labels", {}) and not self.is_queue_open:
            if not job["spec"].get("suspend"):
                self._patch(job, {"spec": {"suspend": True}})
            self._stop(followed)
            self._tell(job, "Suspended", ready=0)
        elif job["spec"].get("suspend"):
            self._patch(job, {"spec": {"suspend": False}})
        elif not followed.pods:
            self._start(job, followed)
        else:
            self._look_at(job, followed)

    def _start(self, job: dict[str, Any], followed: Followed) -> None:
        (port,) = free_ports(1)
        followed.num_starts += 1
        nodes = range(job["spec"]["trainer"]["numNodes"])
        followed.pods = [Pod(job, followed.num_starts, node, port) for node in nodes]
        self._tell(job, "", ready=len(followed.pods))

    def _look_at(self, job: dict[str, Any], followed: Followed) -> None:
        codes = [pod.process.poll() for pod in followed.pods]
        if any(code not in (None, 0) for code in codes):
            self._stop(followed)
            followed.num_failures += 1
            if followed.num_failures > self._max_restarts:
                self._tell(job, "Failed", ready=0)
        elif all(code == 0 for code in codes):
            self._tell(job, "Complete", ready=0)

    def _stop(self, followed: Followed) -> None:
        for pod in followed.pods:
            pod.process.send_signal(signal.SIGTERM)
        for pod in followed.pods:
            pod.process.wait(timeout=180)
        followed.pods = []

    def _patch(self, job: dict[str, Any], change: dict[str, Any]) -> None:
        self._api.patch_namespaced_custom_object(*WHERE, job["metadata"]["name"], change)

    def _tell(self, job: dict[str, Any], kind: str, ready: int) -> None:
        """Write a job's status as Trainer does."""
        followed = self._jobs[job["metadata"]["uid"]]
        if followed.told != (kind, ready):
            status = {"conditions": [condition(kind)] if kind else [], "jobsStatus": [_part(ready)]}
            self._api.patch_namespaced_custom_object_status(
                *WHERE, job["metadata"]["name"], {"status": status}
            )
            followed.told = (kind, ready)


def condition(kind: str, message: str = "as the test wants it") -> dict[str, str]:
    """A condition that holds since now."""
    return {
        "type": kind,
        "status": "True",
        "reason": f"Jobs{kind}",
        "message": message,
        "lastTransitionTime": datetime.now(UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z"),
    }


def _conditions(job: dict[str, Any]) -> list[dict[str, Any]]:
    return job.get("status", {}).get("conditions", [])


def _part(ready: int) -> dict[str, Any]:
    counts = dict.fromkeys(("active", "failed", "succeeded", "suspended"), 0)
    return {"name": "node", "ready": ready, **counts}


def wait_until(holds: Any, seconds: float = 240) -> None:
    """Wait for something that is to come about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
