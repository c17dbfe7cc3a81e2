"""Where a step's component runs: one protocol, chosen by name.

open_backend("local").run(StepRun("select", inputs, outputs, settings))
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.kernel.errors import PipelineError, SettingsError
from components.kernel.step import Metrics

BACKENDS = ("local", "docker")


@dataclass(frozen=True)
class StepRun:
    """One run of a step: paths of its artifacts by name, and its settings."""

    step: str
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    settings: Mapping[str, object] = field(default_factory=dict)


class Backend(Protocol):
    """Something that runs the Kubeflow component of a step."""

    def run(self, run: StepRun) -> Metrics:
        """Run a step until its outputs are published, and give its metrics.

        Raises:
            PipelineError: the step's own error, of the class in which the step raised it.
            StepCrashedError: the step ended without saying why.
        """


class StepCrashedError(PipelineError):
    """A step's process or container ended without an outcome; running it again may help."""

    def __init__(self, step: str) -> None:
        super().__init__(
            f"step {step} ended without an outcome: it was killed, ran out of memory or has a "
            "bug; the lines above are its output. A rerun goes on where it stopped"
        )


def open_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        SettingsError: there is no such backend.
    """
    from components.runners.local import LocalBackend, docker_runner, subprocess_runner

    if name == "local":
        return LocalBackend(subprocess_runner)
    if name == "docker":
        return LocalBackend(docker_runner)
    raise SettingsError(
        f"backend '{name}' is not available; available are {', '.join(BACKENDS)} "
        "(both run the Kubeflow components on this machine)"
    )
