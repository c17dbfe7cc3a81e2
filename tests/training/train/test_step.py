"""The step `train`: two real ranks, curves in MLflow, a stop in the middle."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import pixclip
from components.core.errors import InputError, SettingsError
from components.core.receipts import read_receipt
from components.core.run import run_step
from components.core.settings import parse_settings
from components.core.step import load_step
from components.training.tracked import Followed, summary
from pixclip.checkpoint import save_checkpoint
from pixclip.checksums import weights_digest
from pixclip.training.job import read_steps
from tests.pixclip.training.small import small_model
from tests.pixclip.training.world import write_packed_world

ROOT = Path(__file__).parents[3]
CHANGES = {"data.batch_size": 6, "data.shuffle_shards": 2, "num_steps": 40}
STEP = load_step("train")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A packed data set that keeps its contract, vectors for its captions, a random model."""
    return write_packed_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def tracking_uri(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def places(world, output):
    names = ("dataset", "text_embeddings", "parent")
    inputs = {name: world / name for name in names}
    return inputs, {"checkpoint": output / "checkpoint", "curves": output / "curves.csv"}


def start(world, output, settings: dict) -> subprocess.Popen:
    inputs, outputs = places(world, output)
    options = [f"--{n.replace('_', '-')}={p}" for n, p in (inputs | outputs).items()]
    options += [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    path = os.pathsep.join((str(ROOT), str(ROOT / "model")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "components.cli", "train", *options]
    return subprocess.Popen(
        [*nobody(), *command], env=environment, stderr=subprocess.PIPE, text=True
    )


def nobody() -> list[str]:
    """What starts a program as containers may: a user without a name, and no home to write to."""
    alone = ["unshare", "--user", "--map-user=54321"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        return []  # where kernels do not allow it, the user has a name
    names = [f"--unset={name}" for name in ("USER", "LOGNAME", "LNAME", "USERNAME")]
    return [*alone, "env", *names, "HOME=/proc/nowhere"]


def logged_losses(uri: str) -> list[float]:
    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "pixclip")
    (run,) = client.search_runs([experiment.experiment_id])
    return [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]


def tagged(uri: str) -> str:
    (run,) = MlflowClient(uri).search_runs(["1"])
    return run.data.tags["checkpoint_sha256"]


def test_two_ranks_are_stopped_go_on_and_leave_checkpoint_curves_and_one_run(
    world, tmp_path, tracking_uri
):
    settings = {"stage": "align", "changes": CHANGES, "num_ranks": 2, "save_every_steps": 10}
    process = start(world, tmp_path, settings)
    while process.poll() is None:
        if any(len(read_steps(path.parent)) > 5 for path in tmp_path.rglob("steps.jsonl")):
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told[-3000:]
    assert not (tmp_path / "checkpoint").exists()

    process = start(world, tmp_path, settings)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told[-3000:]
    _, outputs = places(world, tmp_path)
    receipt = read_receipt(outputs["checkpoint"])
    assert receipt.metrics["num_steps"] == 40
    with outputs["curves"].open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] == receipt.metrics["loss"] < losses[0]
    assert logged_losses(tracking_uri) == pytest.approx(losses)
    notes = json.loads((outputs["checkpoint"] / "notes.json").read_text())
    assert notes["recipe"] == "tiny"
    assert notes["stage"]["data"]["batch_size"] == 6
    assert set(notes["trained_on"]) == {"dataset", "text_embeddings", "parent"}
    assert set(notes) == {"recipe", "stage", "trained_on"}  # nothing of this run
    assert tagged(tracking_uri) == weights_digest(outputs["checkpoint"])
    pixclip.load(outputs["checkpoint"])
    assert not (outputs["checkpoint"] / "_work").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "huge"}, "^train: no recipe 'huge'; known are"),
        ({"stage": "x"}, "no stage 'x'; it has align, refine"),
        ({"changes": {"optimizer.lr": 1}}, "no field 'optimizer.lr'"),
        ({"changes": {"data.batch_size": 7}, "num_ranks": 2}, "must be a multiple of num_ranks=2"),
        ({"device": "tpu"}, "train.device"),
        ({"num_ranks": 0}, "train.num_ranks"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(settings, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(STEP, settings)


def test_a_parent_that_is_no_checkpoint_is_refused(world, tmp_path, tracking_uri):
    (tmp_path / "empty").mkdir()
    inputs, outputs = places(world, tmp_path)
    with pytest.raises(InputError, match=r"the parent at .* has no model.safetensors"):
        run_step(STEP, {**inputs, "parent": tmp_path / "empty"}, outputs, {})


def test_vectors_of_another_text_tower_than_the_parent_s_are_refused(world, tmp_path, tracking_uri):
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text("{}")
    save_checkpoint(tmp_path / "parent", small_model(), text_tower=tmp_path / "tower")
    inputs, outputs = places(world, tmp_path)
    with pytest.raises(InputError, match="does not say by which text tower"):
        run_step(STEP, {**inputs, "parent": tmp_path / "parent"}, outputs, {})


class NotingRun:
    """Notes what is logged; MLflow may be away."""

    def __init__(self) -> None:
        self.steps = []

    def log(self, step, metrics) -> None:
        self.steps.append(step)

    def flush(self) -> None:
        pass


def test_a_resumed_run_logs_every_step_once(tmp_path):
    steps, mark = tmp_path / "steps.jsonl", tmp_path / "mark"
    run = NotingRun()
    steps.write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    Followed(tmp_path, mark, run).log_new()
    steps.write_text('{"step": 2, "loss": 1}\n{"step": 3, "loss": 0}\n')
    Followed(tmp_path, mark, run).log_new()
    assert run.steps == [1, 2, 3]


def test_the_summary_tells_the_speed_of_the_run():
    steps = [
        {"step": i, "loss": 1 / i, "samples_per_s": 50} | {"data_wait_share": 0.2, "memory_gb": i}
        for i in range(1, 11)
    ]
    assert summary(steps) == {
        "num_steps": 10,
        "loss": 0.1,
        "samples_per_s": 50,
        "data_wait_share": 0.2,
        "memory_gb": 10,
    }


@pytest.mark.parametrize(
    ("notes", "is_refused"),
    [
        ({"import_report": None}, True),  # no weights were brought: everything is random
        ({"import_report": {"new": [{"target": "adaptor.0.norm.weight"}]}}, True),
        ({"import_report": {"new": [{"target": "vision.mask_embed.weight"}]}}, False),
        ({"recipe": "tiny", "stage": {}}, False),  # a stage before this one made it
    ],
)
def test_a_random_adaptor_cannot_be_frozen(
    world, tmp_path, tracking_uri, notes: dict, is_refused: bool
):
    inputs, outputs = places(world, tmp_path)
    save_checkpoint(tmp_path / "parent", small_model(), notes=notes)
    inputs["parent"] = tmp_path / "parent"
    changes = {**CHANGES, "trainable": ["mask", "vision"], "num_steps": 1}
    refused = pytest.raises(InputError, match=r"adaptor of .* is random, and the stage 'align'")
    with refused if is_refused else contextlib.nullcontext():
        run_step(STEP, inputs, outputs, {"changes": changes})
    assert (outputs["checkpoint"] / "notes.json").exists() != is_refused
