"""Bring a pipeline to a Kubeflow Pipelines server, and run its newest version by name."""

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from components.core.credentials import without_credentials
from components.core.errors import PipelineError, SettingsError
from components.core.settings import merge
from components.orchestration.kubeflow.compile import NO_STAGE, check_step
from components.orchestration.plan import Overrides

# kfp's own `wait_for_run_completion` never returns for a cancelled run.
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
POLL_S = 10.0
MAX_FAILED_POLLS = 30  # in a row: a server that is restarted comes back
# What a pipeline is compiled for: its tasks and their accelerators.
COMPILED = ("recipe", "num_ranks")


class HostError(PipelineError):
    """The Kubeflow server refused, or a run on it failed."""


class ServerAwayError(HostError):
    """The Kubeflow server does not answer at the moment."""


@dataclass(frozen=True)
class HostRun:
    """A run on a server."""

    run_id: str
    version: str
    url: str


class Host:
    """A Kubeflow Pipelines server; the address is that of its web page."""

    def __init__(self, url: str, namespace: str = "kubeflow") -> None:
        import kfp
        from urllib3.exceptions import HTTPError

        self.url = url.rstrip("/")
        warnings.filterwarnings("ignore", "This client only works", FutureWarning)
        try:
            self._client: Any = kfp.Client(host=self.url, namespace=namespace)
        except (HTTPError, RuntimeError, OSError) as error:
            raise HostError(f"cannot reach Kubeflow Pipelines at {url}: {error}") from None

    def upload(self, package: Path, name: str, version: str) -> str:
        """Bring a compiled pipeline as a new version, and give the version's id.

        Raises:
            HostError: the server refused.
        """
        from kfp_server_api import ApiException

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                pipeline_id = self._client.get_pipeline_id(name)
                if pipeline_id is None:
                    new = self._client.upload_pipeline(str(package), pipeline_name=name)
                    return str(self._newest(new.pipeline_id).pipeline_version_id)
                uploaded = self._client.upload_pipeline_version(
                    str(package), pipeline_version_name=version, pipeline_id=pipeline_id
                )
        except ApiException as error:
            raise _told(error, f"upload of {name} to {self.url}") from error
        return str(uploaded.pipeline_version_id)

    def run(self, name: str, overrides: Overrides, experiment: str) -> HostRun:
        """Start the newest version of a pipeline; `overrides` change single settings.

        Raises:
            HostError: there is no such pipeline, or the server refused.
        """
        from kfp_server_api import ApiException

        try:
            pipeline_id = self._client.get_pipeline_id(name)
            if pipeline_id is None:
                raise HostError(
                    f"{self.url} has no pipeline '{name}'; bring it there with "
                    f"`pixclip pipeline upload {name} --host {self.url}`"
                )
            version = self._newest(pipeline_id)
            params = changed_arguments(version.pipeline_spec, overrides)
            with contextlib.redirect_stdout(io.StringIO()):  # kfp prints addresses of its own
                run = self._client.run_pipeline(
                    experiment_id=self._client.create_experiment(experiment).experiment_id,
                    job_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                    pipeline_id=pipeline_id,
                    version_id=version.pipeline_version_id,
                    params=params,
                )
        except ApiException as error:
            raise _told(error, f"run of {name} on {self.url}") from error
        url = f"{without_credentials(self.url)}/#/runs/details/{run.run_id}"
        return HostRun(run.run_id, str(version.display_name), url)

    def wait(self, run_id: str, say: Callable[[str], None], poll_s: float = POLL_S) -> None:
        """Wait for the end of a run, saying each change of its state.

        Raises:
            HostError: the run did not succeed, or the server no longer answers.
        """
        state, num_failed = "", 0
        while state not in ENDED:
            try:
                now = self._state(run_id)
                num_failed = 0
            except ServerAwayError as error:
                num_failed += 1
                if num_failed > MAX_FAILED_POLLS:
                    raise HostError(f"{error}; the run {run_id} may go on without us") from error
                now = state
            if now != state:
                state = now
                say(state)
            if state not in ENDED:
                time.sleep(poll_s)
        if state not in ("SUCCEEDED", "SKIPPED"):
            raise HostError(f"run {run_id} ended as {state}; its page has the logs")

    def _state(self, run_id: str) -> str:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return str(self._client.get_run(run_id).state)
        except HTTPError as error:
            raise ServerAwayError(f"{self.url} no longer answers: {error}") from error
        except ApiException as error:
            told = _told(error, f"look at run {run_id} on {self.url}")
            if error.status is None or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise ServerAwayError(str(told)) from error
            raise told from error

    def _newest(self, pipeline_id: str) -> Any:
        versions = self._client.list_pipeline_versions(
            pipeline_id, page_size=1, sort_by="created_at desc"
        ).pipeline_versions
        if not versions:
            raise HostError(f"pipeline {pipeline_id} at {self.url} has no version")
        return versions[0]


def changed_arguments(spec: Mapping[str, Any], overrides: Overrides) -> dict[str, str]:
    """The pipeline's parameters of which a setting changes: the version's own with the changes.

    Raises:
        HostError: the pipeline has no step of that name, or was compiled for another value.
        SettingsError: a setting is unknown or wrong; refused here, not at its task hours later.
    """
    spec = spec.get("pipeline_spec", spec)  # beside it is what the platform gets
    known = spec["root"]["inputDefinitions"]["parameters"]
    strange = [step for step in overrides if step not in known]
    if strange:
        raise HostError(f"{strange[0]}: no such step; the pipeline's are {', '.join(known)}")
    defaults = {step: json.loads(known[step]["defaultValue"]) for step in overrides}
    changed = {step: merge(defaults[step], changes) for step, changes in overrides.items()}
    for step, settings in changed.items():
        for name in COMPILED:
            if settings.get(name) != defaults[step].get(name):
                raise HostError(
                    f"{step}.{name}: the pipeline there was compiled for "
                    f"{defaults[step].get(name)}, which decides its tasks and their accelerators; "
                    "upload it anew: `pixclip pipeline upload … --set "
                    f"{step}.{name}={settings[name]}`"
                )
        if settings.get("stage") != defaults[step].get("stage"):
            raise SettingsError(NO_STAGE)
        check_step(step, settings)
    return {step: json.dumps(settings) for step, settings in changed.items()}


def _told(error: Any, what: str) -> HostError:
    """The server's own words, without the headers of its answer."""
    try:
        reason = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        reason = f"{error.status} {error.reason}"
    return HostError(f"{what} failed: {reason}")
