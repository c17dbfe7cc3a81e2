"""A pod of the double: a container with scratch folders, volumes and limits as Kubeflow gives them.

The container's program gets no SIGTERM when a pod ends: the launcher passes none on.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRATCH = ("gcs", "s3", "minio", ".local", ".cache", ".config")  # empty folders of each pod
USER = 1000  # of the images


@dataclass(frozen=True)
class Pod:
    """What one attempt of a task gets."""

    name: str
    image: str
    root: Path
    environment: Mapping[str, str]
    mounts: Mapping[str, Path]
    deadline_s: float | None

    @property
    def log(self) -> Path:
        """What its container prints."""
        return self.root / "executor.log"

    def make_folders(self) -> None:
        """The scratch folders, which anybody may write."""
        for name in SCRATCH:
            (self.root / name).mkdir(parents=True)
            (self.root / name).chmod(0o777)

    def kill(self) -> None:
        """End it as a node does that goes away: at once."""
        subprocess.run(["docker", "kill", self.name], capture_output=True)


def run_pod(pod: Pod, words: Sequence[str]) -> int:
    """Run a pod's container to its end; its exit code."""
    for path in (pod.root / "s3", *(pod.root / "s3").rglob("*")):
        os.lchown(path, USER, USER)
    command = ["docker", "run", "--rm", "--name", pod.name, "--network", "host", "--pull", "never"]
    for name in SCRATCH:
        command += ["--volume", f"{pod.root / name}:/{name}"]
    for place, folder in pod.mounts.items():
        command += ["--volume", f"{folder}:{place}"]
    for key, value in pod.environment.items():
        command += ["--env", f"{key}={value}"]
    image = pod.image.rpartition("@")[2]  # no registry here: an image's digest is its own
    with pod.log.open("wb") as log:
        try:
            done = subprocess.run(
                [*command, image, *words], stdout=log, stderr=log, timeout=pod.deadline_s
            )
        except subprocess.TimeoutExpired:
            pod.kill()
            return 137
    return done.returncode
