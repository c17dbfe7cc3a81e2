"""Bring a pipeline to Kubeflow and run it by name: plans, and the command line over them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from components.cli import cli
from components.core.errors import InputError, SettingsError
from components.orchestration.kubeflow import cli as commands
from components.orchestration.kubeflow import client as client_module
from components.orchestration.kubeflow.client import (
    AwayError,
    Client,
    KubeflowError,
    RefusedError,
    Server,
    get,
)
from components.orchestration.kubeflow.runs import Identity, ProcessStore, Runs, Timing
from components.orchestration.kubeflow.server import (
    changed_arguments,
    pinned_arguments,
    requester,
    upload,
)
from tests.orchestration.kubeflow.kubeflow_server import Fault, KubeflowServer

GOLDEN = Path(__file__).with_name("pixclip-train.yaml")
NAME = "pixclip-train"
POD = "pixclip-train-x7k2p-1234"
OF_COMMIT = ("--set", f"resolve_data.revision={'0' * 40}")  # else its repository is asked
FAILED = {"state": "FAILED", "end_time": "2026-01-01T00:00:01Z"}
# As KFP tells the nodes of a run whose task `evaluate` failed.
FAILED_NODES = [
    {"display_name": "pixclip-train-x7k2p", **FAILED},
    {"display_name": "root", **FAILED},
    {"display_name": "train-align", "state": "SUCCEEDED", "child_tasks": [{"pod_name": "p1"}]},
    {"display_name": "evaluate", **FAILED, "child_tasks": [{"pod_name": POD}]},
    {"display_name": "executor", **FAILED},
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(commands, "POLL_S", 0.02)
    with KubeflowServer(outcome="SUCCEEDED") as server:
        yield server
        assert server.violations == []


def call(server: KubeflowServer, plan: Any, **fields: str) -> Any:
    with Client(Server(server.url, **fields)) as client:
        return client.run(plan)


def pixclip(server: KubeflowServer, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["pipeline", *arguments, "--host", server.url])


def run(server: KubeflowServer, overrides: Any, **fields: str) -> Any:
    place = Server(server.url, **fields)
    request = requester(place, NAME, lambda spec: changed_arguments(spec, overrides))
    plan = Runs(Timing(0.02, 0.1, 1)).ensure(Identity("a", NAME), request, ProcessStore())
    with Client(place) as client:
        return client.run(plan)


def test_the_first_upload_makes_the_pipeline_and_the_next_a_version(server):
    place = Server(server.url)
    text = GOLDEN.read_text()
    made = [call(server, upload(place, text, NAME, name)) for name in ("first", "second")]
    assert [version.version_id for version in made] == [f"{NAME}-0", f"{NAME}-1"]
    assert [version["display_name"] for version in server.pipelines[NAME]] == [NAME, "second"]


def test_a_run_by_name_takes_the_newest_version_and_only_the_changed_settings(server):
    for version in ("old", "new"):
        server.add_version(NAME, version, GOLDEN.read_text())
    fields = {"service_account": "runner", "pipeline_root": "s3://bucket/here"}
    run(server, {"resolve_data": {"revision": "v2"}}, **fields)
    (started,) = server.runs.values()
    reference = started["pipeline_version_reference"]
    assert reference == {"pipeline_id": f"id-of-{NAME}", "pipeline_version_id": f"{NAME}-1"}
    sent = started["runtime_config"]["parameters"]
    assert list(sent) == ["resolve_data"]
    settings = json.loads(sent["resolve_data"])
    assert (settings["revision"], settings["name"]) == ("v2", "longgrit")
    assert started["experiment_id"] == "e0"
    assert started["service_account"] == "runner"
    assert started["runtime_config"]["pipeline_root"] == "s3://bucket/here"
    assert len(server.experiments) == 1


def test_a_pipeline_that_is_not_there_is_told_with_what_to_do(server):
    with pytest.raises(KubeflowError, match=f"pixclip pipeline upload {NAME} --host {server.url}"):
        run(server, {})


def test_a_step_that_the_uploaded_version_does_not_have_is_refused(server):
    server.add_version(NAME, "old", GOLDEN.read_text())
    with pytest.raises(InputError, match="segment: no such step; the pipeline's are"):
        run(server, {"segment": {}})
    assert not server.runs


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """The address of a repository with a branch and a tag, and the commit of both."""
    folder = tmp_path / "repository"
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(folder))
    commands = (
        ("init", "--quiet", "--initial-branch", "main", str(folder)),
        (*own, "commit", "--quiet", "--allow-empty", "--message", "data"),
        (*own, "tag", "--annotate", "--message", "first", "v1"),
    )
    for command in commands:
        subprocess.run(["git", *command], check=True)
    ask = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    commit = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    return folder.as_uri(), commit


@pytest.mark.parametrize("revision", ["main", "v1"])
def test_a_run_of_a_branch_or_tag_takes_its_commit_of_the_moment(repository, revision):
    spec = next(yaml.safe_load_all(GOLDEN.read_text()))
    address, commit = repository
    changes = {"repository": address, "revision": revision, "name": "birds"}
    sent = pinned_arguments(spec, {"resolve_data": changes, "train": {"num_workers": 4}})
    settings = json.loads(sent["resolve_data"])
    assert {**settings, **changes, "revision": commit} == settings
    assert json.loads(sent["train"])["num_workers"] == 4


def test_a_branch_that_the_repository_does_not_have_starts_no_run(repository):
    spec = next(yaml.safe_load_all(GOLDEN.read_text()))
    with pytest.raises(InputError, match="has no branch or tag 'v2'"):
        pinned_arguments(spec, {"resolve_data": {"repository": repository[0], "revision": "v2"}})


def test_a_repository_that_only_pods_see_is_left_to_them():
    spec = next(yaml.safe_load_all(GOLDEN.read_text()))
    changes = {"repository": "/state/repository", "revision": "main"}
    sent = pinned_arguments(spec, {"resolve_data": changes})
    assert json.loads(sent["resolve_data"])["revision"] == "main"


def test_settings_of_another_recipe_are_checked_by_its_own_stages():
    recipe = {"recipe": "pixclip_b16_paper", "stage": "align", "num_ranks": 2}
    spec = {
        "root": {
            "inputDefinitions": {"parameters": {"train": {"defaultValue": json.dumps(recipe)}}}
        }
    }
    changed = changed_arguments(spec, {"train": {"num_workers": 4}})
    assert json.loads(changed["train"]) == {**recipe, "num_workers": 4}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": {"num_rank": 2}}, SettingsError, r"train\.num_rank: no such setting; did you"),
        ({"promote": {"min_samples": "few"}}, SettingsError, r"promote\.min_samples: .*'few'"),
        (
            {"train": {"recipe": "pixclip_l14", "stage": "regions"}},
            InputError,
            r"compiled for tiny",
        ),
        ({"train": {"stage": "refine"}}, SettingsError, r"train\.stage cannot be set here"),
        ({"train": {"num_ranks": 8}}, InputError, r"train\.num_ranks: .* compiled for 2"),
    ],
)
def test_a_setting_that_would_fail_hours_later_is_refused_here(server, changes, error, message):
    server.add_version(NAME, "old", GOLDEN.read_text())
    with pytest.raises(error, match=message):
        run(server, changes)
    assert not server.runs


def test_the_command_line_uploads_runs_by_name_and_waits(server):
    done = pixclip(server, "upload", NAME)
    assert done.exit_code == 0, done.output
    done = pixclip(server, "run", NAME, *OF_COMMIT, "--set", "train.changes.num_steps=2")
    assert done.exit_code == 0, done.output
    (run_id,) = server.runs
    assert f"{server.url}/#/runs/details/{run_id}" in done.output
    assert [line.split(": ")[1] for line in done.output.splitlines()[1:]] == [
        "PENDING", "RUNNING", "SUCCEEDED",
    ]  # fmt: skip
    sent = server.runs[run_id]["runtime_config"]["parameters"]["train"]
    assert json.loads(sent)["changes"] == {"num_steps": 2}


def test_every_run_of_the_command_is_a_run_of_its_own(server):
    server.add_version(NAME, "old", GOLDEN.read_text())
    for _ in range(2):
        assert pixclip(server, "run", NAME, *OF_COMMIT, "--no-wait").exit_code == 0
    assert len(server.runs) == len(server.workflows) == 2


def failed_run(server: KubeflowServer) -> str:
    server.outcome = "FAILED"
    server.add_version(NAME, "old", GOLDEN.read_text())
    server.task_details = FAILED_NODES
    server.logs = {POD: "begun\nGateError: too few\n", "p1": "trained\n"}
    done = pixclip(server, "run", NAME, *OF_COMMIT)
    return str(done.exception)


def test_a_run_that_failed_is_told_with_its_task_and_the_end_of_its_log(server):
    told = failed_run(server)
    (run_id,) = server.runs
    assert told == f"run {run_id} ended as FAILED at task evaluate\nbegun\nGateError: too few"
    server.logs = {}
    done = pixclip(server, "retry", NAME)
    assert str(done.exception).endswith("evaluate; its log is no longer there")


def test_status_and_logs_are_those_of_the_newest_run(server):
    failed_run(server)
    done = pixclip(server, "status", NAME)
    assert [line.split() for line in done.output.splitlines()[1:3]] == [
        ["train-align", "SUCCEEDED"],
        ["evaluate", "FAILED"],
    ]
    assert "FAILED" in done.output.splitlines()[0]
    done = pixclip(server, "logs", NAME, "--task", "evaluate", "--lines", "1")
    assert done.output == "==> evaluate <==\nGateError: too few\n"
    done = pixclip(server, "logs", NAME, "--task", "pack")
    assert "has no log of a task 'pack'" in str(done.exception)


def test_a_failed_run_goes_on_under_its_own_id(server):
    failed_run(server)
    (run_id,) = server.runs
    server.outcome = "SUCCEEDED"
    done = pixclip(server, "retry", NAME, "--run", run_id)
    assert done.exit_code == 0, done.output
    assert [server.runs[run_id]["state"], len(server.runs)] == ["SUCCEEDED", 1]


def test_a_run_is_cancelled_and_one_that_has_ended_is_left(server):
    server.outcome = ""
    server.add_version(NAME, "old", GOLDEN.read_text())
    pixclip(server, "run", NAME, *OF_COMMIT, "--no-wait")
    done = pixclip(server, "cancel", NAME)
    assert done.exit_code == 0, done.output
    assert done.output.strip().endswith("CANCELING")
    assert pixclip(server, "cancel", NAME).exit_code == 0


def test_a_command_without_a_server_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("PIXCLIP_KUBEFLOW", raising=False)
    done = CliRunner().invoke(cli, ["pipeline", "status", NAME])
    assert str(done.exception) == "name the server: --host ADDRESS, or PIXCLIP_KUBEFLOW"


def test_a_stop_waits_until_the_workflow_has_got_it(server):
    """The server notes the end before it tells the Workflow: its error leaves the run going."""
    server.outcome = ""
    server.add_version(NAME, "old", GOLDEN.read_text())
    run_id = run(server, {})["run_id"]
    server.faults = [Fault("after", "TerminateRun")]
    call(server, Runs(Timing(0.02, 0.1, 2)).stop(run_id))
    assert server.runs[run_id]["state"] == "CANCELED"
    call(server, Runs(Timing(0.02, 0.1, 2)).stop("no-such-run"))


def test_a_server_that_does_not_answer_is_told(tmp_path):
    with KubeflowServer() as server:
        pass
    with pytest.raises(AwayError, match=r"GET /apis/v2beta1/healthz: .* does not answer"):
        call(server, look())


def test_a_page_to_log_in_is_told_with_what_to_do():
    def login(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>Log in</html>")

    with Client(Server("http://kubeflow.example")) as client:
        client._http = httpx.Client(
            base_url="http://kubeflow.example", transport=httpx.MockTransport(login)
        )
        with pytest.raises(RefusedError, match="perhaps a page for people to log in"):
            client.run(look())


def test_a_token_that_stays_wrong_is_refused(server, tmp_path):
    server.token = "right"
    with pytest.raises(RefusedError, match="no user identity"):
        call(server, look())
    (tmp_path / "token").write_text("wrong")
    with pytest.raises(RefusedError, match="no user identity"):
        call(server, look(), token_file=str(tmp_path / "token"))
    (tmp_path / "token").write_text("right\n")
    assert call(server, look(), token_file=str(tmp_path / "token")) == {"multi_user": False}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_file": "/no/such/token"}, "token file /no/such/token cannot be read"),
        ({"ca_file": "/no/such/ca"}, "CA file /no/such/ca cannot be read"),
    ],
)
def test_a_file_that_is_not_there_is_told(server, fields, message):
    with pytest.raises(KubeflowError, match=message):
        call(server, look(), **fields)
    with pytest.raises(KubeflowError, match="'kubeflow' is no http"):
        Server("kubeflow")


def look() -> Any:
    return (yield get("/healthz"))


def test_kubeflow_s_own_command_uploads_the_committed_file(server):
    kfp = Path(sys.executable).with_name("kfp")
    command = [kfp, "--endpoint", server.url, "pipeline"]
    for arguments in (["create", "-p", NAME], ["create-version", "-v", "second", "-p", NAME]):
        done = subprocess.run([*command, *arguments, GOLDEN], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [version["display_name"] for version in server.pipelines[NAME]] == [NAME, "second"]
