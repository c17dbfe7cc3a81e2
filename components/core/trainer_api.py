"""The TrainJobs of a namespace, through Kubernetes' API for custom resources.

Of the cluster it needs `trainjobs` (get, list, create, patch, delete) and, to show logs, `pods` and
`pods/log`; it reads no runtime, which a namespace's accounts may not.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from components.core.errors import PipelineError, SettingsError
from components.core.trainjob import API, VERSION

log = logging.getLogger(__name__)

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TIMEOUT_S = (5.0, 30.0)  # to connect, to answer
AWAY_S = 600.0  # so long an API server may be away; a control plane is replaced in minutes
LONGEST_PAUSE_S = 30.0
ALL = "trainjobs"
Answer = TypeVar("Answer")


class ClusterRefused(PipelineError):
    """The Kubernetes API does not accept what was asked of it, or is away for long."""


class TrainJobs:
    """The TrainJobs of one namespace; a server that is away for a while is waited for."""

    def __init__(self, namespace: str = "") -> None:
        """Open the cluster that this pod runs in, or that of `KUBECONFIG`.

        Args:
            namespace: empty for the pod's own, or `default`.

        Raises:
            SettingsError: there is neither.
        """
        from kubernetes import client, config

        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:  # in a pod
                config.load_incluster_config()
            else:
                config.load_kube_config(os.environ.get("KUBECONFIG"))
        except config.ConfigException as error:
            raise SettingsError(
                f"there is no Kubernetes cluster to create a TrainJob in: {error}; run the step in "
                "a pod with a service account, or set KUBECONFIG"
            ) from None
        own = NAMESPACE.read_text(encoding="utf-8").strip() if NAMESPACE.exists() else "default"
        self.namespace = namespace or own
        self._jobs: Any = client.CustomObjectsApi()
        self._pods: Any = client.CoreV1Api()
        self._where = {"group": API, "version": VERSION, "namespace": self.namespace, "plural": ALL}

    def create(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Create a job; None if one of that name is there, perhaps by this very call.

        Raises:
            ClusterRefused: the server does not take it.
        """

        def ask() -> Any:
            return self._jobs.create_namespaced_custom_object(
                **self._where, body=job, field_validation="Strict", _request_timeout=TIMEOUT_S
            )

        return self._asked(ask, f"create {job['metadata']['name']}", none_at=HTTPStatus.CONFLICT)

    def get(self, name: str) -> dict[str, Any] | None:
        """A job as it is now; None if there is none."""

        def ask() -> Any:
            return self._jobs.get_namespaced_custom_object(
                **self._where, name=name, _request_timeout=TIMEOUT_S
            )

        return self._asked(ask, f"get {name}", none_at=HTTPStatus.NOT_FOUND)

    def labelled(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """The jobs with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())

        def ask() -> Any:
            return self._jobs.list_namespaced_custom_object(
                **self._where, label_selector=selector, _request_timeout=TIMEOUT_S
            )

        found = self._asked(ask, "list")
        return list(found["items"]) if found else []

    def mark(self, name: str, metadata: dict[str, Any]) -> None:
        """Set labels and annotations of a job; nothing if it is gone."""

        def ask() -> Any:
            return self._jobs.patch_namespaced_custom_object(
                **self._where,
                name=name,
                body={"metadata": metadata},
                _request_timeout=TIMEOUT_S,
            )

        self._asked(ask, f"patch {name}", none_at=HTTPStatus.NOT_FOUND)

    def delete(self, name: str, uid: str) -> None:
        """Delete this very job; it is gone, for `get`, when its pods have ended."""
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}

        def ask() -> Any:
            return self._jobs.delete_namespaced_custom_object(
                **self._where, name=name, body=options, _request_timeout=TIMEOUT_S
            )

        # A conflict: another job has the name by now.
        gone = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
        self._asked(ask, f"delete {name}", none_at=gone)

    def new_lines(self, name: str, since: datetime) -> list[str]:
        """What node 0 of a job has printed since a time, each line after its time; for people.

        Nothing if its pod is not there yet, or its log may not be read.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        first = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
        seconds = max(1, int((datetime.now(UTC) - since) / timedelta(seconds=1)) + 1)
        try:
            pods = self._pods.list_namespaced_pod(
                self.namespace, label_selector=first, _request_timeout=TIMEOUT_S
            ).items
            if not pods:
                return []
            newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
            text = self._pods.read_namespaced_pod_log(
                newest.metadata.name,
                self.namespace,
                since_seconds=seconds,
                timestamps=True,
                _request_timeout=TIMEOUT_S,
            )
        except (ApiException, HTTPError) as error:
            log.debug("no log of %s: %s", name, error)
            return []
        return str(text).splitlines()

    def _asked(
        self,
        ask: Callable[[], Answer],
        what: str,
        none_at: HTTPStatus | tuple[HTTPStatus, ...] = (),
    ) -> Answer | None:
        """The server's answer, asked again while it is away or overloaded.

        Raises:
            ClusterRefused: it refused, or was away for long.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        expected = (none_at,) if isinstance(none_at, HTTPStatus) else none_at
        began, pause_s = time.monotonic(), 1.0
        while True:
            try:
                return ask()
            except ApiException as error:
                if error.status in expected:
                    return None
                told = _reason(error)
                if not _passes(error.status):
                    raise ClusterRefused(
                        f"{what} TrainJob in {self.namespace} was refused: {told}{_advice(error)}"
                    ) from None
            except HTTPError as error:
                told = str(error)
            if time.monotonic() - began > AWAY_S:
                raise ClusterRefused(
                    f"{what} TrainJob in {self.namespace}: the Kubernetes API does not answer "
                    f"({told}). A job that runs goes on, and a retry finds it"
                )
            log.warning("%s TrainJob: asking again in %.0f s: %s", what, pause_s, told)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _passes(status: int | None) -> bool:
    """Whether an error of this status may be gone a moment later."""
    return not status or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (401, 408, 429)


def _advice(error: Any) -> str:
    if error.status == HTTPStatus.FORBIDDEN:
        return "; bind the role pixclip-driver (deploy/base/access.yaml) to this service account"
    if error.status == HTTPStatus.NOT_FOUND:
        return "; is Kubeflow Trainer 2 installed, and is there such a namespace?"
    return ""


def _reason(error: Any) -> str:
    """The server's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
