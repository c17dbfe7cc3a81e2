"""The train image, built by a real engine: two ranks train in it, and Git and DVC bring data."""

import json
from pathlib import Path

import pytest

import pixclip
from components.orchestration.local import StepRun, open_backend
from tests.pixclip.training.world import write_packed_world

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What training starts from: a packed data set, vectors of its captions, a random model."""
    return write_packed_world(tmp_path_factory.mktemp("world"))


def test_two_ranks_train_in_a_container(image, folder, monkeypatch):
    image("train")
    monkeypatch.setenv("PIXCLIP_DOCKER_NETWORK", "none")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    inputs = {name: folder / name for name in ("dataset", "text_embeddings", "parent")}
    outputs = {"checkpoint": folder / "out/checkpoint", "curves": folder / "out/curves.csv"}
    changes = {"data.batch_size": 6, "data.shuffle_shards": 2, "num_steps": 4}
    settings = {"stage": "align", "changes": changes, "num_ranks": 2}
    metrics = open_backend("docker").run(StepRun("train", inputs, outputs, settings))
    assert metrics["num_steps"] == 4
    assert len(outputs["curves"].read_text().splitlines()) == 1 + 4
    pixclip.load(outputs["checkpoint"])
    assert (folder / "mlflow.db").exists()


def test_a_version_of_the_data_is_brought_in_a_container(image, folder, monkeypatch):
    image("train")
    monkeypatch.setenv("PIXCLIP_HOME", str(folder))
    settings = {"repository": str(folder / "repository")}
    publish = {"dataset": folder / "dataset"}
    publication = {"publication": folder / "publication"}
    open_backend("local").run(StepRun("publish", publish, publication, settings))
    out = {
        "dataset": folder / "brought"
    }  # beside the repository: a container sees its run's folder
    metrics = open_backend("docker").run(StepRun("resolve_data", {}, out, settings))
    told = json.loads((out["dataset"] / "version.json").read_text())
    assert metrics["num_files"] > 0
    assert len(told["git_commit"]) == 40
