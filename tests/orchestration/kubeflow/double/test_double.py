"""`pixclip-train` as Kubeflow's driver and launcher run it: real images, a real S3, a claim.

The data set has more than 200 MB, the language model and the training are tiny. `train` is killed
once it has saved a state; a second run with the same commit follows. `DOUBLE_TABLE` names a file to
which the table of both runs is written.
"""

import csv
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from components.core.digests import num_bytes_of
from components.core.run import run_step
from components.core.step import load_step
from components.orchestration.kubeflow.cluster import ClusterSettings
from components.orchestration.kubeflow.compile import (
    compile_pipeline,
    pipeline_arguments,
    pipeline_settings,
)
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN
from tests.data.pack.conftest import build_run
from tests.language_models import save_language_model
from tests.orchestration.kubeflow.double.backend import CACHED, COMPLETE, FAILED, Backend, Run
from tests.orchestration.kubeflow.double.pods import USER, Pod

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[4]
CLAIM = "pixclip-state"
NUM_IMAGES, SIZE = 136, (1600, 1200)  # about 1.6 MB each, as noise hardly compresses
PURE_TASKS = {
    *("resolve-data", "check", "adapt-text", "embed-text", "init-model", "train", "train-2"),
    "evaluate",
}
CHANGES = {"num_steps": 16, "data.batch_size": 6, "data.shuffle_shards": 2}


@dataclass
class World:
    """An installation, the pipeline that was compiled for it, and what a run is started with."""

    backend: Backend
    text: str
    arguments: dict[str, str]
    dataset_bytes: int

    @property
    def state(self) -> Path:
        """The state volume."""
        return self.backend.claim(CLAIM)

    def run(self, **changes: dict[str, Any]) -> Run:
        """Run the pipeline, with some settings changed."""
        changed = {
            step: json.dumps({**json.loads(self.arguments[step]), **own})
            for step, own in changes.items()
        }
        return self.backend.run(self.text, {**self.arguments, **changed})


@pytest.fixture(scope="module")
def images(docker_client, build_module) -> dict[str, str]:
    """The names of the images of this very tree by digest: here that of the image itself."""
    build_module.require_base(docker_client)
    names = {}
    for name in ("data", "train"):
        told = subprocess.run(
            [docker_client, "image", "inspect", "--format", "{{.Id}}",
             build_module.build(docker_client, name)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        names[name] = f"example.test/pixclip-{name}@{told.stdout.strip()}"
    return names


def noise(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8))


def publish_dataset(folder: Path, state: Path) -> tuple[str, int]:
    """A version of a large data set in a repository on the state volume: its commit and bytes."""
    made = build_run(folder / "run", num_images=NUM_IMAGES, backdrops=noise)
    packed = folder / "longgrit"
    settings = {"benchmark_regions": 9, "benchmark_max_share": 0.4, "val_share": 0.1}
    run_step(load_step("pack"), made.inputs, {"longgrit": packed}, settings)
    out = {"publication": folder / "publication"}
    repository = {"repository": str(state / "repository")}
    run_step(load_step("publish"), {"dataset": packed}, out, repository)
    told = json.loads((folder / "publication" / "publication.json").read_text())
    return told["git_commit"], num_bytes_of(packed)


def give_to_pods(folder: Path) -> None:
    """What the Job does that prepares a claim."""
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, USER, USER)


@pytest.fixture(scope="module")
def world(tmp_path_factory, s3_endpoint, images) -> Iterator[World]:
    """An installation with a state volume that holds a repository and a tiny language model."""
    folder = tmp_path_factory.mktemp("cluster")
    backend = Backend(folder, s3_endpoint)
    state = backend.claim(CLAIM)
    (state / "mlflow").mkdir()
    save_language_model(state / "models" / "tiny")
    commit, num_bytes = publish_dataset(folder, state)
    give_to_pods(state)
    cluster = ClusterSettings(
        gpus=dict.fromkeys(("train", "adapt_text", "embed_text", "evaluate"), 0),
        images=images,
        state_claim=os.environ.get("DOUBLE_CLAIM", CLAIM),
        settings={
            "resolve_data": {"repository": "/state/repository"},
            "adapt_text": {"base_model": "/state/models/tiny", "num_layers": 0},
            "train": {"num_ranks": 1, "save_every_steps": 1, "changes": CHANGES},
            "evaluate": {"num_resamples": 100, "num_maps": 1, "num_examples": 2},
        },
        environment={
            "MLFLOW_TRACKING_URI": "sqlite:////state/mlflow/mlflow.db",
            "OMP_NUM_THREADS": "1",
        },
        retries=1,
    )
    settings = pipeline_settings(PIXCLIP_TRAIN, {}, cluster)
    settings["resolve_data"]["revision"] = commit
    text = compile_pipeline(PIXCLIP_TRAIN, settings, cluster)
    yield World(backend, text, pipeline_arguments(settings), num_bytes)
    shutil.rmtree(folder)


@dataclass
class Runs:
    """Two runs with the same commit; `train` of the first is killed in its first attempt."""

    first: Run
    second: Run
    steps_before: list[str]  # lines of the training's losses when it was killed


def kill_when_a_state_is_saved(state: Path, pod: Pod, seen: list[str]) -> None:
    """End a pod at once when its training has saved a state and gone on for a while."""
    for _ in range(6000):
        saved = [p for p in state.glob("train/*/.checkpoint.draft-*/_work/states/*") if p.is_dir()]
        steps = list(state.glob("train/*/.checkpoint.draft-*/_work/steps.jsonl"))
        if saved and steps and len(steps[0].read_text().splitlines()) > 5:
            pod.kill()
            time.sleep(1)  # its last lines
            seen += steps[0].read_text().splitlines()
            return
        time.sleep(0.1)


@pytest.fixture(scope="module")
def runs(world) -> Runs:
    """Both runs; see `Runs`."""
    seen: list[str] = []

    def started(name: str, attempt: int, pod: Pod) -> None:
        if name == "train" and attempt == 0:
            killer = (world.state, pod, seen)
            threading.Thread(target=kill_when_a_state_is_saved, args=killer, daemon=True).start()

    world.backend.started = started
    first = world.run()
    tell("first run, train killed once", first)
    second = world.run()
    tell("second run, the same commit", second)
    return Runs(first, second, seen)


def tell(title: str, run: Run) -> None:
    """Append a run to the table that somebody asked for."""
    if os.environ.get("DOUBLE_TABLE"):
        lines = [
            f"{it.name:16} {it.state:9} {it.attempts} attempts {it.seconds:6.1f} s  "
            f"down {it.bytes_down / 1e6:8.3f} MB  up {it.bytes_up / 1e6:8.3f} MB"
            for it in run.reports
        ]
        told = "\n".join([title, *lines, f"moved {run.bytes_moved / 1e6:.3f} MB", ""])
        with Path(os.environ["DOUBLE_TABLE"]).open("a") as file:
            file.write(told + "\n")


def test_every_task_completes_although_train_was_killed(runs):
    failed = [it for it in runs.first.reports if it.state != COMPLETE]
    assert not failed, failed[0].log[-3000:]
    assert runs.first.report("train").attempts == 2
    attempts = {it.name: it.attempts for it in runs.first.reports}
    assert {name for name, number in attempts.items() if number > 1} == {"train"}


def test_what_a_killed_training_had_done_is_not_done_again(world, runs):
    (curves,) = [
        path for path in world.state.glob("train/*/curves") if _begins_with(path, runs.steps_before)
    ]
    assert len(curves.read_text().splitlines()) == 1 + CHANGES["num_steps"]


def _begins_with(curves: Path, steps: list[str]) -> bool:
    """Whether curves begin with the lines of a killed attempt, also in that attempt's speed."""
    with curves.open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return rows[:5] == [json.loads(line) for line in steps[:5]]


def test_a_run_moves_little_through_s3_whatever_its_data_set_holds(world, runs):
    assert world.dataset_bytes > 200e6
    assert runs.first.bytes_moved < 5e6
    assert runs.second.bytes_moved < 1e6


def test_a_second_run_with_the_same_commit_has_every_pure_step_from_the_cache(runs):
    states = runs.second.states()
    assert {name for name, state in states.items() if state == CACHED} == PURE_TASKS
    assert {state for name, state in states.items() if name not in PURE_TASKS} == {COMPLETE}


def test_the_registered_version_names_code_image_run_and_data(world, runs, images):
    run = runs.first
    artifact = run.artifacts["register", "registration"]
    s3 = boto3.client("s3", endpoint_url=world.backend.endpoint)
    key = artifact["uri"].removeprefix("s3://mlpipeline/") + "/registration.json"
    told = json.loads(s3.get_object(Bucket="mlpipeline", Key=key)["Body"].read())["tags"]
    assert told["kubeflow_run"] == run.id
    assert told["image_digest"] == images["train"].partition("@")[2]
    assert len(told["git_commit"].removesuffix("+changes")) == 40
    assert told["data_revision"] == json.loads(world.arguments["resolve_data"])["revision"]


def test_the_exit_task_says_how_it_ended(runs):
    assert "pipeline COMPLETE" in runs.first.report("record-outcome").log


def test_a_wrong_setting_of_a_late_step_fails_at_the_first_task(world, runs):
    run = world.run(promote={"min_samples": "few"})
    states = run.states()
    assert states.pop("check-settings") == FAILED
    assert states.pop("record-outcome") == COMPLETE
    assert set(states.values()) == {"OMITTED"}
    assert run.report("check-settings").attempts == 1
    assert "promote.min_samples" in run.report("check-settings").log


def test_a_target_that_is_gone_names_the_step_to_run_again(world, runs):
    (place,) = world.state.glob("evaluate/*")
    place.rename(world.state / "evaluation-away")
    try:
        run = world.run()
    finally:
        (world.state / "evaluation-away").rename(place)
    assert run.states()["evaluate"] == CACHED
    assert run.states()["register"] == FAILED
    assert "which step evaluate made, is gone" in run.report("register").log


def test_a_claim_of_root_is_told_with_what_to_do(world, runs):
    os.chown(world.state, 0, 0)
    moved = world.state / "resolve_data"
    moved.rename(world.state / "away")
    try:
        run = world.run(resolve_data={"endpoint_url": "http://other.example"})
    finally:
        (world.state / "away").rename(moved)
        os.chown(world.state, USER, USER)
    assert run.states()["resolve-data"] == FAILED
    assert "InputError: cannot write the state folder" in run.report("resolve-data").log


def test_the_tasks_are_those_of_all_steps(runs):
    names = {it.name.removesuffix("-2").replace("-", "_") for it in runs.first.reports}
    assert names == {*PIXCLIP_TRAIN.steps, "check_settings", "record_outcome"}
