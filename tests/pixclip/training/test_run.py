"""A whole run: killed, damaged, stopped and resumed, it is the run that nothing happened to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pixclip
from pixclip.training import run
from pixclip.training.job import Job, read_job, write_job
from pixclip.training.stage import STOPPED, SaveSignals
from tests.pixclip.training.world import (
    NUM_STEPS,
    make_job,
    make_stage,
    write_embeddings,
    write_world,
)

ROOT = Path(__file__).parents[3]
SPEEDS = ("samples_per_s", "data_wait_share", "memory_gb")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def untouched(world, tmp_path_factory):
    """The job of a run that nothing happened to, in this process."""
    torch.set_num_threads(1)
    job = make_job(world, tmp_path_factory.mktemp("untouched"))
    assert run.train(job)
    return job


def steps_of(job) -> list[dict]:
    """What every step measured, without how fast it was."""
    lines = (Path(job.work) / "steps.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEEDS} for line in lines]


def start(job) -> subprocess.Popen:
    path = Path(job.work) / "job.json"
    write_job(path, job)
    environment = {name: value for name, value in os.environ.items() if "RANK" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", "pixclip.training.run", "--job", str(path)],
        env={
            **environment,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'model'}",
        },
        stderr=subprocess.DEVNULL,
    )


def send_at(job, number: int, at_step: int) -> int:
    """Run a job, send it a signal once it has made so many steps, give its exit code."""
    process, file = start(job), Path(job.work) / "steps.jsonl"
    while process.poll() is None:
        if file.exists() and file.read_text().count("\n") >= at_step:
            process.send_signal(number)
            break
        time.sleep(0.002)
    return process.wait(60)


def same_weights(first, second) -> bool:
    one, other = (pixclip.load(job.checkpoint).state_dict() for job in (first, second))
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_run_leaves_a_checkpoint_that_has_learned_with_its_notes(untouched, world):
    steps = steps_of(untouched)
    assert [step["step"] for step in steps] == list(range(1, NUM_STEPS + 1))
    assert {"epoch", "loss", "loss_cl", "loss_fc", "loss_lg", "lr_mask", "lr_rest"} < set(steps[0])
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["epoch"] > 0
    trained = pixclip.load(untouched.checkpoint).state_dict()
    parent = pixclip.load(world / "parent").state_dict()
    assert not any(torch.equal(tensor, parent[name]) for name, tensor in trained.items())


def test_the_losses_are_those_of_the_golden_curves(untouched):
    """Losses of eq. 2 to 7 and the gradient, step by step; another PyTorch rounds otherwise."""
    golden = json.loads(Path(__file__).with_name("golden_curves.json").read_text())["train"]
    steps = steps_of(untouched)
    for name, curve in golden.items():
        found = [step[name] for step in steps[: len(curve)]]
        assert found == pytest.approx(curve, rel=1e-3), name


def test_a_killed_damaged_and_stopped_run_gives_the_losses_of_one_that_was_not(
    untouched, world, tmp_path
):
    job = make_job(world, tmp_path)
    assert send_at(job, signal.SIGKILL, at_step=7) == -signal.SIGKILL
    assert send_at(job, signal.SIGTERM, at_step=19) == STOPPED
    states = Path(job.work) / "states"
    latest = states / (states / "latest").read_text()
    stopped_at = json.loads((Path(job.work) / "steps.jsonl").read_text().splitlines()[-1])["step"]
    assert latest.name == f"step-{stopped_at:08d}"  # saved when it was asked to stop
    (latest / "rank-00000.pt").write_bytes(b"damaged")
    assert run.train(job)
    assert steps_of(job) == steps_of(untouched)
    assert same_weights(job, untouched)


def test_a_run_that_fails_after_its_last_step_repeats_no_step(world, tmp_path, monkeypatch):
    def full_disk(*arguments: object, **settings: object) -> None:
        raise OSError("No space left on device")

    job = make_job(world, tmp_path, stage=make_stage(3))
    with monkeypatch.context() as patched:
        patched.setattr(run, "save_checkpoint", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run.train(job)
    lines = (Path(job.work) / "steps.jsonl").read_bytes()
    assert run.train(job)
    assert (Path(job.work) / "steps.jsonl").read_bytes() == lines  # the speeds too
    whole = make_job(world, tmp_path / "whole", stage=make_stage(3))
    run.train(whole)
    assert same_weights(job, whole)


def test_a_warm_up_that_never_ends_is_told(world, tmp_path, caplog):
    stage = make_stage(2)
    for warmup_steps in (1, 8):
        warmed = stage.changed(optimizer=stage.optimizer.changed(warmup_steps=warmup_steps))
        run.train(make_job(world, tmp_path / str(warmup_steps), stage=warmed))
        assert ("reach 25 % of what was set" in caplog.text) == (warmup_steps == 8)


def test_gradcache_learns_what_the_whole_batch_learns(untouched, world, tmp_path):
    few = make_stage().changed(num_steps=5)
    jobs = [
        make_job(world, tmp_path / str(size), stage=few, micro_batch_size=size) for size in (0, 2)
    ]
    for job in jobs:
        run.train(job)
    whole, parts = ([step["loss"] for step in steps_of(job)] for job in jobs)
    assert parts == pytest.approx(whole, rel=1e-4)


def test_parts_that_are_frozen_stay_bit_by_bit(world, tmp_path):
    job = make_job(world, tmp_path, stage=make_stage(3).changed(trainable=("mask",)))
    run.train(job)
    trained = pixclip.load(job.checkpoint).state_dict()
    for name, tensor in pixclip.load(world / "parent").state_dict().items():
        assert torch.equal(trained[name], tensor) != name.startswith("vision.mask_embed"), name


@pytest.mark.parametrize("num_steps", [0, 5])
def test_too_few_regions_for_a_batch_are_told(world, tmp_path, num_steps):
    big = make_stage(num_steps).changed(data=make_stage().data.changed(batch_size=600))
    with pytest.raises(ValueError, match="has no batch of 600 to train on"):
        run.train(make_job(world, tmp_path, stage=big))


def test_vectors_of_another_text_tower_are_told(world, tmp_path):
    write_embeddings(tmp_path / "vectors", ["a"], width=5)
    job = make_job(world, tmp_path, text_embeddings=str(tmp_path / "vectors"))
    with pytest.raises(ValueError, match="have 5 numbers, the adaptor"):
        run.train(job)


def test_a_job_is_read_as_it_was_written(world, tmp_path):
    job = make_job(world, tmp_path, notes={"a": [1]}, save_every_s=3.0)
    write_job(tmp_path / "job.json", job)
    assert read_job(tmp_path / "job.json", Job) == job


def test_saving_is_due_by_steps_and_by_seconds_and_sigterm_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with SaveSignals(every_s=1000, every_steps=3) as signals:
        assert [signals.read(step)[0] for step in range(5, 9)] == [False, True, False, False]
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.read(9) == (True, True)
    assert signal.getsignal(signal.SIGTERM) == before
    with SaveSignals(every_s=1e-9) as signals:
        assert signals.read(1) == (True, False)
