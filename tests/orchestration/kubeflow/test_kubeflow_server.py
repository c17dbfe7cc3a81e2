"""The test server is as its API's description says, and as the real server's code."""

from collections.abc import Iterator

import httpx
import pytest

from tests.orchestration.kubeflow.kubeflow_server import DESCRIPTION, Fault, KubeflowServer

SPEC = "pipelineInfo: {name: a}\nroot: {}\n"
RUN_ID = "11111111-2222-5333-8444-555555555555"


@pytest.fixture
def server() -> Iterator[KubeflowServer]:
    with KubeflowServer(grace_s=0.1) as server:
        server.add_version("a", "first", SPEC)
        yield server
        assert server.violations == []


@pytest.fixture
def http(server: KubeflowServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/apis/v2beta1") as http:
        yield http


def start(http: httpx.Client, **changes: object) -> httpx.Response:
    reference = {"pipeline_id": "id-of-a"}
    body = {"display_name": "a run", "run_id": RUN_ID, "pipeline_version_reference": reference}
    return http.post("/runs", json={**body, **changes})


def test_every_operation_of_the_description_is_answered(server, http):
    names = {"pipeline_id": "id-of-a", "pipeline_version_id": "a-0", "run_id": RUN_ID}
    http.post("/experiments", json={"display_name": "e"})
    start(http)
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            place = path.removeprefix("/apis/v2beta1").format(**names, experiment_id="e0")
            asked = {"files": {"uploadfile": SPEC}} if place.endswith(("load", "version")) else {}
            if place in ("/runs", "/experiments") and method == "post":
                asked = {"json": {"display_name": "one more"}}
            status = http.request(method, place, params={"name": "b"}, **asked).status_code
            assert status in (200, 400), operation["operationId"]
    assert len(server.asked) == 2 + sum(map(len, DESCRIPTION["paths"].values()))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"display_name": ""}, 400),
        ({"pipeline_version_reference": None}, 400),
        ({"pipeline_version_reference": {"pipeline_id": "id-of-b"}}, 404),
        ({"no_such_field": 1}, 400),
        ({"runtime_config": []}, 400),
    ],
    ids=str,
)
def test_a_request_that_the_description_does_not_know_is_refused(server, http, changes, status):
    assert start(http, **changes).status_code == status
    assert server.workflows == []


def test_what_is_no_json_and_no_path_is_refused(server, http):
    assert http.post("/runs", content=b"{").status_code == 400
    assert http.get("/no/such/path").status_code == 404
    assert http.delete("/runs").status_code == 405
    assert http.get("/runs", params={"filter": "no json"}).status_code == 400


def test_a_second_request_with_the_same_id_leaves_an_orphan_that_is_not_removed(server, http):
    """As KFP 2.17 does: its collector of Workflows looks for a row with their run's id."""
    assert [start(http).status_code for _ in range(2)] == [200, 500]
    httpx.get(f"{server.url}/apis/v2beta1/healthz")
    assert (len(server.live_workflows), len(server.live_rows)) == (2, 1)


def test_a_workflow_without_a_row_is_removed_after_a_time(server, http):
    import time

    server.faults.append(Fault("between"))
    assert start(http).status_code == 500
    assert (len(server.live_workflows), len(server.runs)) == (1, 0)
    time.sleep(0.15)
    assert server.live_workflows == []


def test_terminating_what_does_not_run_is_refused(server, http):
    start(http)
    assert http.post(f"/runs/{RUN_ID}:terminate").status_code == 200
    assert http.post(f"/runs/{RUN_ID}:terminate").status_code == 400
    states = [http.get(f"/runs/{RUN_ID}").json()["state"] for _ in range(5)]
    assert states == ["CANCELING"] * 4 + ["CANCELED"]
    assert server.live_workflows == []
