"""The driver of a TrainJob against a real API server; the test says what becomes of the job."""

import ctypes
import json
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kubernetes.client import ApiException

from components.cli import cli
from components.core import nodes, trainer_api
from components.core.errors import InputError, RanksFailed, SettingsError
from components.core.nodes import CREATED_NAME, cancel_run, run_on_nodes
from components.core.trainer_api import ClusterRefused
from components.core.trainjob import (
    RUN_VARIABLE,
    VARIABLE,
    JobPlace,
    Ranks,
    job_place,
    make_trainjob,
)
from components.orchestration.kubeflow import cli as commands
from tests.cluster.front import front
from tests.cluster.trainer import WHERE, condition, wait_until
from tests.orchestration.kubeflow.kubeflow_server import KubeflowServer

PIPELINE = Path(__file__).parents[1] / "orchestration" / "kubeflow" / "pixclip-train.yaml"


@pytest.fixture
def server(kubeconfig, api, monkeypatch):
    """A front before the server, which this process's driver talks to, in a hurry."""
    with front(kubeconfig) as (told, path):
        monkeypatch.setenv("KUBECONFIG", str(path))
        monkeypatch.setattr(nodes, "POLL_S", 0.05)
        yield told
        for thread in threading.enumerate():  # none looks after jobs of the next test
            if isinstance(thread, Driver):
                thread.kill()


@pytest.fixture
def ranks(tmp_path) -> Ranks:
    path = tmp_path / "state" / "train" / "0123" / "job.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"work": str(path.parent), "num_workers": 2}))
    return Ranks("pixclip.training.run", path, 4)


@pytest.fixture
def place(tmp_path) -> JobPlace:
    return JobPlace(
        step="train",
        image="registry.example/pixclip-train@sha256:0123",
        num_nodes=2,
        runtime="pixclip-torch",
        state_claim="pixclip-state",
        state_path=str(tmp_path / "state"),
        queue="train",
        priority="pixclip-train",
        num_accelerators=2,
        node_selector={"pool": "gpu"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        environment={"MLFLOW_TRACKING_URI": "http://mlflow"},
        secrets={"AWS_ACCESS_KEY_ID": ("pixclip-s3", "access-key")},
        image_pull_secret="registry",
    )


@pytest.fixture
def deleted(api):
    """Names of jobs that were asked to go; they go, as their nodes would have ended."""
    gone, over = [], threading.Event()

    def follow() -> None:
        while not over.wait(0.05):
            for job in jobs_of(api):
                if "deletionTimestamp" in job["metadata"]:
                    gone.append(job["metadata"]["uid"])
                    no_finalizers = {"metadata": {"finalizers": None}}
                    api.patch_namespaced_custom_object(
                        *WHERE, job["metadata"]["name"], no_finalizers
                    )

    thread = threading.Thread(target=follow)
    thread.start()
    yield gone
    over.set()
    thread.join()


class Driver(threading.Thread):
    """A driver in a thread, and how it ended."""

    def __init__(self, ranks: Ranks, place: JobPlace) -> None:
        super().__init__(daemon=True)
        self.ranks, self.place, self.error = ranks, place, None
        self.start()

    def run(self) -> None:
        try:
            run_on_nodes(self.ranks, self.place)
        except SystemExit:
            pass  # it is killed
        except Exception as error:
            self.error = error

    def kill(self) -> None:
        """End it wherever it is, as SIGKILL ends a process: it deletes and marks nothing more."""
        deadline = time.monotonic() + 60
        while self.is_alive():  # again: an exception in a finalizer is swallowed
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
            )
            self.join(timeout=1)
            assert time.monotonic() < deadline

    def ended(self) -> Exception | None:
        self.join(timeout=60)
        assert not self.is_alive()
        return self.error


def jobs_of(api) -> list[dict]:
    return api.list_namespaced_custom_object(*WHERE)["items"]


def the_job(api) -> dict:
    """The one job there is, or that is to come: one that is replaced is away for a moment."""
    found: list[dict] = []

    def is_there() -> bool:
        found[:] = jobs_of(api)
        return bool(found)

    wait_until(is_there, 30)
    (job,) = found
    return job


def tell(api, kind: str, message: str = "") -> None:
    name = the_job(api)["metadata"]["name"]
    status = {"status": {"conditions": [condition(kind, message)]}}
    api.patch_namespaced_custom_object_status(*WHERE, name, status)


def test_a_job_is_created_waited_for_and_gone_after_it(server, api, ranks, place, deleted):
    driver = Driver(ranks, place)
    job = the_job(api)
    assert job["spec"]["trainer"]["numNodes"] == 2
    assert job["spec"]["trainer"]["numProcPerNode"] == 2
    assert job["spec"]["trainer"]["command"] == ["torchrun", "--shutdown-timeout", "150"]
    assert job["spec"]["trainer"]["args"][:3] == ["-m", "pixclip.training.run", "--job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "train"
    tell(api, "Complete")
    assert driver.ended() is None
    assert jobs_of(api) == []


def test_a_killed_driver_s_job_is_joined_and_not_made_again(server, api, ranks, place, deleted):
    first = Driver(ranks, place)
    uid = the_job(api)["metadata"]["uid"]
    first.kill()
    second = Driver(ranks, place)
    wait_until(lambda: sum("GET" in asked for asked in server.asked) > 8, 30)
    assert the_job(api)["metadata"]["uid"] == uid
    tell(api, "Complete")
    assert second.ended() is None
    assert deleted.count(uid) >= 1
    assert {asked for asked in server.asked if asked.startswith("POST")} != set()
    assert jobs_of(api) == []


@pytest.mark.parametrize("fault", ["the answer is lost", "500 before it", "429 before it"])
def test_one_job_is_made_whatever_becomes_of_the_answer(
    server, api, ranks, place, deleted, fault, monkeypatch
):
    monkeypatch.setattr(trainer_api, "LONGEST_PAUSE_S", 0.05)
    if fault == "the answer is lost":
        server.lost.append("POST")
    else:
        server.failed.append(int(fault[:3]))
    driver = Driver(ranks, place)
    uid = the_job(api)["metadata"]["uid"]
    wait_until(ranks.job.with_name(CREATED_NAME).exists, 30)
    tell(api, "Complete")
    assert driver.ended() is None
    assert set(deleted) == {uid}


def test_a_job_with_other_settings_is_replaced_after_its_nodes_have_ended(
    server, api, ranks, place, deleted
):
    first = Driver(ranks, place)
    old = the_job(api)["metadata"]
    first.kill()
    ranks.job.write_text(ranks.job.read_text().replace('"num_workers": 2', '"num_workers": 8'))
    driver = Driver(ranks, place)
    wait_until(lambda: the_job(api)["metadata"]["uid"] != old["uid"], 30)
    assert the_job(api)["metadata"]["name"] == old["name"]
    tell(api, "Complete")
    assert driver.ended() is None
    assert old["uid"] in deleted


def test_time_in_the_queue_is_waited_for_and_told(server, api, ranks, place, deleted, caplog):
    caplog.set_level("INFO")
    driver = Driver(ranks, place)
    name = the_job(api)["metadata"]["name"]
    api.patch_namespaced_custom_object(*WHERE, name, {"spec": {"suspend": True}})
    wait_until(lambda: "waits in the queue" in caplog.text, 30)
    api.patch_namespaced_custom_object(*WHERE, name, {"spec": {"suspend": False}})
    wait_until(lambda: "waits for its nodes" in caplog.text, 30)
    tell(api, "Complete")
    assert driver.ended() is None


def test_the_reason_of_a_failed_job_is_the_step_s_and_the_job_goes(
    server, api, ranks, place, deleted
):
    driver = Driver(ranks, place)
    tell(api, "Failed", "jobset failed after 2 restarts")
    error = driver.ended()
    assert isinstance(error, RanksFailed)
    assert "failed: jobset failed after 2 restarts. What was saved is kept" in str(error)
    assert jobs_of(api) == []


def test_a_rank_s_refusal_ends_the_job_at_once(server, api, ranks, place, deleted):
    driver = Driver(ranks, place)
    the_job(api)
    failure = {"message": "shard 3 holds no image", "is_refusal": True}
    ranks.job.with_name("failure.json").write_text(json.dumps(failure))
    error = driver.ended()
    assert isinstance(error, InputError)
    assert str(error) == "shard 3 holds no image"
    assert jobs_of(api) == []


def test_a_job_that_failed_before_is_tried_again(server, api, ranks, place, deleted):
    job = make_trainjob(ranks, place)
    failed = api.create_namespaced_custom_object(*WHERE, job)["metadata"]["uid"]
    tell(api, "Failed")
    driver = Driver(ranks, place)
    wait_until(lambda: the_job(api)["metadata"]["uid"] != failed, 30)
    tell(api, "Complete")
    assert driver.ended() is None


@pytest.mark.parametrize("is_here", [True, False])
def test_a_complete_job_counts_if_its_work_is_still_here(
    server, api, ranks, place, deleted, is_here
):
    made = api.create_namespaced_custom_object(*WHERE, make_trainjob(ranks, place))
    uid = made["metadata"]["uid"]
    if is_here:
        ranks.job.with_name(CREATED_NAME).write_text(json.dumps({"uid": uid}))
    tell(api, "Complete")
    driver = Driver(ranks, place)
    if not is_here:
        wait_until(lambda: the_job(api)["metadata"]["uid"] != uid, 30)
        tell(api, "Complete")
    assert driver.ended() is None
    assert set(deleted) >= {uid}
    assert len(set(deleted)) == (1 if is_here else 2)


def test_a_cancelled_run_s_job_goes_and_its_driver_says_so(
    server, api, ranks, place, deleted, monkeypatch
):
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    driver = Driver(ranks, place)
    name = the_job(api)["metadata"]["name"]
    assert cancel_run("run-2") == []
    assert cancel_run("run-1") == [name]
    error = driver.ended()
    assert isinstance(error, RanksFailed)
    assert "was deleted while it ran" in str(error)
    assert jobs_of(api) == []


def test_the_command_that_cancels_a_run_deletes_its_jobs_and_no_others(
    server, api, ranks, place, deleted, monkeypatch
):
    monkeypatch.setattr(commands, "POLL_S", 0.02)
    with KubeflowServer() as kubeflow:
        monkeypatch.setenv("PIXCLIP_KUBEFLOW", kubeflow.url)
        kubeflow.add_version("pixclip-train", "first", PIPELINE.read_text())
        pixclip("run", "--no-wait", "--set", f"resolve_data.revision={'0' * 40}")
        (run_id,) = kubeflow.runs
        names = {}
        for run, step in ((run_id, "train"), ("another", "adapt_text")):
            monkeypatch.setenv(RUN_VARIABLE, run)
            job = make_trainjob(ranks, place.model_copy(update={"step": step}))
            api.create_namespaced_custom_object(*WHERE, job)
            names[run] = job["metadata"]["name"]
        done = pixclip("cancel", "--jobs-in", "default")
        assert done.output.splitlines()[-1].strip() == f"deleted TrainJob {names[run_id]}"
        assert kubeflow.runs[run_id]["state"] in ("CANCELING", "CANCELED")
    wait_until(lambda: len(jobs_of(api)) == 1, 30)
    assert the_job(api)["metadata"]["name"] == names["another"]


def pixclip(command: str, *arguments: str) -> Result:
    done = CliRunner().invoke(cli, ["pipeline", command, "pixclip-train", *arguments])
    assert done.exit_code == 0, done.output
    return done


def test_whoever_joins_a_job_makes_it_the_job_of_its_own_run(
    server, api, ranks, place, deleted, monkeypatch
):
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    api.create_namespaced_custom_object(*WHERE, make_trainjob(ranks, place))
    monkeypatch.setenv(RUN_VARIABLE, "run-2")
    driver = Driver(ranks, place)
    wait_until(lambda: the_job(api)["metadata"]["labels"]["pixclip.dev/run"] == "run-2", 30)
    assert cancel_run("run-1") == []
    tell(api, "Complete")
    assert driver.ended() is None


def test_a_job_without_a_driver_is_swept_by_the_next_run_and_one_with_a_driver_stays(
    server, api, ranks, place, deleted, tmp_path
):
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    seen = {"orphan": long_ago, "living": datetime.now(UTC).isoformat(timespec="seconds")}
    for name, when in seen.items():
        job = make_trainjob(ranks, place)
        job["metadata"]["name"] = name
        job["metadata"]["annotations"]["pixclip.dev/driver-seen"] = when
        api.create_namespaced_custom_object(*WHERE, job)
    stranger = make_trainjob(ranks, place)
    stranger["metadata"] = {"name": "stranger"}
    api.create_namespaced_custom_object(*WHERE, stranger)
    driver = Driver(ranks, place)

    def names() -> set[str]:
        return {job["metadata"]["name"] for job in jobs_of(api)}

    wait_until(lambda: len(names()) == 3 and "orphan" not in names(), 30)
    assert {"living", "stranger"} < names()
    (own,) = names() - {"living", "stranger"}
    status = {"status": {"conditions": [condition("Complete")]}}
    api.patch_namespaced_custom_object_status(*WHERE, own, status)
    assert driver.ended() is None


def test_a_driver_marks_its_job(server, api, ranks, place, deleted, monkeypatch):
    monkeypatch.setattr(nodes, "SEEN_EVERY_S", 0.1)
    driver = Driver(ranks, place)
    first = the_job(api)["metadata"]["annotations"]["pixclip.dev/driver-seen"]
    wait_until(
        lambda: the_job(api)["metadata"]["annotations"]["pixclip.dev/driver-seen"] != first, 30
    )
    tell(api, "Complete")
    assert driver.ended() is None


def test_a_job_the_cluster_does_not_take_is_told_in_its_words(server, api, ranks, place):
    with pytest.raises(ClusterRefused, match=r"create pixclip-train-\w+ TrainJob in default was"):
        run_on_nodes(ranks, place.model_copy(update={"num_nodes": 4, "cpu": "many"}))
    server.failed.append(403)
    with pytest.raises(ClusterRefused, match=r"bind the role pixclip-driver"):
        run_on_nodes(ranks, place)


def test_files_that_nodes_do_not_see_are_refused(server, api, ranks, place, tmp_path):
    (tmp_path / "parent").mkdir()
    ranks.job.write_text(json.dumps({"stage": {"parent": str(tmp_path / "parent")}}))
    with pytest.raises(InputError, match=r"share .*/state with this one .*parent lies elsewhere"):
        run_on_nodes(ranks, place)
    assert jobs_of(api) == []


def test_ranks_that_nodes_cannot_share_are_refused(ranks, place):
    with pytest.raises(
        SettingsError, match=r"train\.num_ranks=4 must be a multiple of the 3 nodes"
    ):
        make_trainjob(ranks, place.model_copy(update={"num_nodes": 3}))


def test_the_place_comes_from_the_environment(place):
    assert job_place({}) is None
    assert job_place({VARIABLE: place.model_dump_json(exclude_defaults=True)}) == place
    with pytest.raises(SettingsError, match="num_nodes: Field required"):
        job_place({VARIABLE: place.model_dump_json().replace("num_nodes", "num_nods")})


MISSPELT = {
    "an unknown field": lambda spec: spec["trainer"].update(numNods=2),
    "a field of Trainer 1": lambda spec: spec.update(podTemplateOverrides=[]),
    "no rank": lambda spec: spec["trainer"].update(numProcPerNode=0),
    "no runtime": lambda spec: spec.pop("runtimeRef"),
    "a volume's field": lambda spec: pod_of(spec)["volumes"][0].update(emptyDirs={}),
    "two patches of one manager": lambda spec: spec["runtimePatches"].append(
        spec["runtimePatches"][0]
    ),
}


def pod_of(spec: dict) -> dict:
    (nodes_patch,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"][
        "replicatedJobs"
    ]
    return nodes_patch["template"]["spec"]["template"]["spec"]


@contextmanager
def refused():
    with pytest.raises(ApiException) as caught:
        yield
    assert caught.value.status in (400, 422), caught.value.body


@pytest.mark.parametrize("change", MISSPELT.values(), ids=MISSPELT)
def test_the_server_checks_every_field_of_a_job(api, ranks, place, change):
    job = make_trainjob(ranks, place)
    api.create_namespaced_custom_object(*WHERE, job, field_validation="Strict", dry_run="All")
    change(job["spec"])
    with refused():
        api.create_namespaced_custom_object(*WHERE, job, field_validation="Strict", dry_run="All")


def test_a_place_names_no_file_of_this_machine(place):
    assert Path(place.state_path).is_absolute()
