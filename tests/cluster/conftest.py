"""The API server for custom resources, one for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.cluster.api_server import api_server
from tests.cluster.trainer import WHERE


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running server's kubeconfig; skips where it cannot be built."""
    with api_server(tmp_path_factory.mktemp("crdserver")) as path:
        yield path


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[client.CustomObjectsApi]:
    """The server's custom objects; no TrainJob is there before the test, and none after it."""
    objects = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
    yield objects
    for job in objects.list_namespaced_custom_object(*WHERE)["items"]:
        name = job["metadata"]["name"]
        if job["metadata"].get("finalizers"):
            objects.patch_namespaced_custom_object(*WHERE, name, {"metadata": {"finalizers": None}})
        objects.delete_namespaced_custom_object(*WHERE, name)
