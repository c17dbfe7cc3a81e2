"""Bring a pipeline to Kubeflow and run it by name, with kfp's own client over HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli import cli
from components.core.errors import SettingsError
from components.orchestration.kubeflow import server as host
from components.orchestration.kubeflow.server import Host, HostError, changed_arguments
from tests.orchestration.kubeflow.kubeflow_server import AWAY, KubeflowServer

GOLDEN = Path(__file__).with_name("pixclip-train.yaml")
NAME = "pixclip-train"


@pytest.fixture
def server() -> Iterator[KubeflowServer]:
    with KubeflowServer() as server:
        yield server


def test_the_first_upload_makes_the_pipeline_and_the_next_a_version(server):
    kubeflow = Host(server.url)
    assert kubeflow.upload(GOLDEN, NAME, "first") == f"{NAME}-0"
    assert kubeflow.upload(GOLDEN, NAME, "second") == f"{NAME}-1"
    assert [version["display_name"] for version in server.pipelines[NAME]] == [NAME, "second"]


def test_a_run_by_name_takes_the_newest_version_and_only_the_changed_settings(server):
    kubeflow = Host(server.url)
    for version in ("old", "new"):
        server.add_version(NAME, version, GOLDEN.read_text())
    run = kubeflow.run(NAME, {"resolve_data": {"revision": "v2"}}, "pixclip")
    assert run.version == "new"
    assert run.url == f"{server.url}/#/runs/details/r0"
    (started,) = server.runs
    reference = started["pipeline_version_reference"]
    assert reference == {"pipeline_id": f"id-of-{NAME}", "pipeline_version_id": f"{NAME}-1"}
    sent = started["runtime_config"]["parameters"]
    assert list(sent) == ["resolve_data"]
    settings = json.loads(sent["resolve_data"])
    assert (settings["revision"], settings["name"]) == ("v2", "longgrit")
    assert started["experiment_id"] == "e0"
    kubeflow.run(NAME, {}, "pixclip")
    assert len(server.experiments) == 1


def test_the_end_of_a_run_is_awaited_and_told(server):
    said: list[str] = []
    Host(server.url).wait("r0", said.append, poll_s=0)
    assert said == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_a_server_that_is_away_for_a_moment_is_waited_for():
    said: list[str] = []
    with KubeflowServer(("RUNNING", AWAY, AWAY, "SUCCEEDED")) as server:
        Host(server.url).wait("r0", said.append, poll_s=0)
    assert said == ["RUNNING", "SUCCEEDED"]


def test_a_server_that_stays_away_is_told(monkeypatch):
    monkeypatch.setattr(host, "MAX_FAILED_POLLS", 1)
    told = pytest.raises(HostError, match="the server is away; the run r0 may go on without us")
    with KubeflowServer(("RUNNING", AWAY)) as server, told:
        Host(server.url).wait("r0", lambda _: None, poll_s=0)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_did_not_succeed_is_an_error(state):
    ended = pytest.raises(HostError, match=f"run r0 ended as {state}")
    with KubeflowServer(("RUNNING", state)) as server, ended:
        Host(server.url).wait("r0", lambda _: None, poll_s=0)


def test_a_pipeline_that_is_not_there_is_told_with_what_to_do(server):
    with pytest.raises(HostError, match=f"pixclip pipeline upload {NAME} --host {server.url}"):
        Host(server.url).run(NAME, {}, "pixclip")


def test_a_step_that_the_uploaded_version_does_not_have_is_refused(server):
    server.add_version(NAME, "old", GOLDEN.read_text())
    with pytest.raises(HostError, match="segment: no such step; the pipeline's are"):
        Host(server.url).run(NAME, {"segment": {}}, "pixclip")
    assert not server.runs


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
        ({"train": {"recipe": "pixclip_l14", "stage": "regions"}}, HostError, r"compiled for tiny"),
        ({"train": {"stage": "refine"}}, SettingsError, r"train\.stage cannot be set here"),
        ({"train": {"num_ranks": 8}}, HostError, r"train\.num_ranks: .* compiled for 2"),
    ],
)
def test_a_setting_that_would_fail_hours_later_is_refused_here(server, changes, error, message):
    server.add_version(NAME, "old", GOLDEN.read_text())
    with pytest.raises(error, match=message):
        Host(server.url).run(NAME, changes, "pixclip")
    assert not server.runs


def test_the_command_line_uploads_and_runs_by_name(server):
    runner = CliRunner()
    done = runner.invoke(cli, ["pipeline", "upload", NAME, "--host", server.url])
    assert done.exit_code == 0, done.output
    assert server.pipelines[NAME]
    command = ["pipeline", "run", NAME, "--host", server.url, "--no-wait", "--set"]
    done = runner.invoke(cli, [*command, "train.changes.num_steps=2"])
    assert done.exit_code == 0, done.output
    assert f"{server.url}/#/runs/details/r0" in done.output
    sent = server.runs[0]["runtime_config"]["parameters"]["train"]
    assert json.loads(sent)["changes"] == {"num_steps": 2}


def test_a_server_that_does_not_answer_is_told(tmp_path):
    with KubeflowServer() as server:
        url = server.url
    with pytest.raises(HostError, match="cannot reach Kubeflow Pipelines"):
        Host(url)


def test_kubeflow_s_own_command_uploads_the_committed_file(server):
    kfp = Path(sys.executable).with_name("kfp")
    command = [kfp, "--endpoint", server.url, "pipeline"]
    for arguments in (["create", "-p", NAME], ["create-version", "-v", "second", "-p", NAME]):
        done = subprocess.run([*command, *arguments, GOLDEN], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [version["display_name"] for version in server.pipelines[NAME]] == [NAME, "second"]
