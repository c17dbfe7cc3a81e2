"""Where a step runs (`open_backend`): its Kubeflow component, here through `kfp.local`.

The component is the task of a pipeline of its own; importers hand it the input artifacts. It
publishes its outputs in place (`destinations`), so nothing is copied.
"""

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from components.core.errors import InputError, PipelineError, SettingsError
from components.core.kubeflow import METRICS, component_of, read_outcome
from components.core.receipts import read_receipt
from components.core.run import is_published
from components.core.step import ARTIFACTS, Metrics, load_step
from components.orchestration.home import TRACKING_FOLDER, at_home, project_home
from components.orchestration.telling import INDENT, tell, tell_counts

log = logging.getLogger(__name__)

# Credentials and addresses of S3 and MLflow, what the registry says of code and image, and how
# OpenMP's threads behave.
PASSED_ON = (
    "AWS_", "MLFLOW_", "PIXCLIP_GIT_COMMIT", "PIXCLIP_IMAGE_DIGEST", "OMP_", "GOMP_",
)  # fmt: skip

SCRATCH = "/tmp"  # noqa: S108  # of a container


@dataclass(frozen=True)
class StepRun:
    """One run of a step: paths of its artifacts by name, and its settings."""

    step: str
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    settings: Mapping[str, object] = field(default_factory=dict)


# Makes a kfp.local runner that can reach the artifacts of a run.
RunnerFactory = Callable[[StepRun], Any]


class LocalBackend:
    """Runs components in subprocesses or containers of this machine, one at a time."""

    def __init__(self, make_runner: RunnerFactory) -> None:
        self._make_runner = make_runner

    def run(self, run: StepRun) -> Metrics:
        """Run a step, unless its outputs are up to date.

        Relative paths, also those among the settings, belong to the project's folder.
        """
        with contextlib.chdir(project_home()):
            return self._run(_with_absolute_paths(run))

    def _run(self, run: StepRun) -> Metrics:
        step = load_step(run.step)
        if is_published(step, run.inputs, run.outputs, run.settings):
            receipt = read_receipt(run.outputs[step.outputs[0]])
            assert receipt is not None, "is_published said so"
            log.info("%s is up to date: %s", step.name, run.outputs[step.outputs[0]])
            tell(f"{INDENT}{step.name} is up to date")
            return dict(receipt.metrics)
        with tempfile.TemporaryDirectory(prefix="pixclip-kfp-") as folder:
            metrics = self._launch(run, Path(folder))
        tell_counts(metrics)
        return metrics

    def _launch(self, run: StepRun, kfp_root: Path) -> Metrics:
        from kfp import local

        outcome = kfp_root / "outcome.json"
        local.init(
            runner=self._make_runner(run),
            pipeline_root=str(kfp_root),
            workspace_root=str(kfp_root / "workspace"),  # which kfp removes
        )
        failure: RuntimeError | None = None
        # kfp warns that an image without "python" in its name may not fit this environment.
        warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)
        try:
            one_step_pipeline(run, outcome)()
        except RuntimeError as error:  # kfp's, which says only that the task failed
            failure = error
        # kfp may take a container that ended at once for a success: only the outcome counts.
        if not outcome.exists():
            raise StepCrashedError(run.step) from failure
        metrics = read_outcome(outcome)
        if failure:
            raise StepCrashedError(run.step) from failure
        return metrics


def subprocess_runner(_: StepRun | None = None) -> Any:
    """A runner in this very environment: no virtual environment is made for a task."""
    from kfp import local

    from components.orchestration.processes import start_steps_here

    start_steps_here()
    return local.SubprocessRunner(use_venv=False)


def docker_runner(run: StepRun) -> Any:
    """A runner in the components' images, as this user, with the run's folder at its own path.

    The project's folder is there too, to be read: relative paths among the settings belong to it.
    Steps of training may write to the database file of MLflow. Nothing else can be written, but
    scratch files in memory.
    """
    from docker.types import Mount
    from kfp import local

    home, folder = str(project_home()), str(shared_folder(run))
    Path(folder).mkdir(parents=True, exist_ok=True)  # Docker mounts only what is there
    is_writable = {home: False, folder: True}
    if load_step(run.step).image == "train":
        is_writable[str(_tracking_folder())] = True
    return local.DockerRunner(
        mounts=[Mount(path, path, "bind", read_only=not own) for path, own in is_writable.items()],
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=home,
        read_only=True,
        tmpfs={SCRATCH: ""},
        network_mode=os.environ.get("PIXCLIP_DOCKER_NETWORK", "host"),
        environment=container_environment(run.settings, os.environ),
    )


def container_environment(
    settings: Mapping[str, object], environment: Mapping[str, str]
) -> dict[str, str]:
    """What a container gets of the environment: `PASSED_ON`, and the keys of the endpoints."""
    own = {
        "HOME": SCRATCH,  # the user has no home in the image, and perhaps no name
        "LOGNAME": environment.get("LOGNAME") or environment.get("USER") or f"uid-{os.getuid()}",
        "PYTHONSAFEPATH": "1",  # the code is the image's, not the checkout's it starts in
    }
    stages = [section for section in settings.values() if isinstance(section, Mapping)]
    keys = {str(stage.get("api_key_env", "")) for stage in stages}
    passed = {
        name: value
        for name, value in environment.items()
        if name.startswith(PASSED_ON) or name in keys
    }
    return {**passed, **own}


def _tracking_folder() -> Path:
    """The folder of MLflow's database file, which must be there to be mounted."""
    folder = at_home(TRACKING_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shared_folder(run: StepRun) -> Path:
    """The folder that holds all artifacts of a run.

    Raises:
        InputError: they have no folder in common but the root.
    """
    paths = [*run.inputs.values(), *(path.parent for path in run.outputs.values())]
    folder = Path(os.path.commonpath(paths))
    if folder == Path(folder.anchor):
        raise InputError(f"step {run.step}: its artifacts lie in no common folder: {paths}")
    return folder


def _with_absolute_paths(run: StepRun) -> StepRun:
    def absolute(paths: Any) -> dict[str, Path]:
        return {name: Path(path).absolute() for name, path in paths.items()}

    return StepRun(run.step, absolute(run.inputs), absolute(run.outputs), run.settings)


def one_step_pipeline(run: StepRun, outcome: Path) -> Any:
    """A Kubeflow pipeline of one task, which takes its inputs from their paths."""
    from kfp import dsl

    component = component_of(load_step(run.step))
    destinations = {name: str(path) for name, path in run.outputs.items()}
    kinds = {name: getattr(dsl, ARTIFACTS[name].kind) for name in run.inputs}

    @dsl.pipeline(name=f"pixclip-{run.step.replace('_', '-')}")
    def one_step() -> None:
        sources = {
            name: dsl.importer(artifact_uri=str(path), artifact_class=kinds[name]).output
            for name, path in run.inputs.items()
        }
        component(
            **sources,
            settings=json.dumps(dict(run.settings)),
            destinations=json.dumps({**destinations, METRICS: str(outcome)}),
        )

    return one_step


BACKENDS = ("local", "docker")


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
    if name == "local":
        return LocalBackend(subprocess_runner)
    if name == "docker":
        return LocalBackend(docker_runner)
    raise SettingsError(
        f"backend '{name}' is not available for a single step; available are {', '.join(BACKENDS)} "
        "(both run the step's Kubeflow component on this machine). Kubeflow Pipelines is given "
        "whole pipelines: PIXCLIP_BACKEND=kubeflow lets the DAG pixclip_train submit its own "
        "(docs/cluster.md)"
    )
