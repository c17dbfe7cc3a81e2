"""A whole run of PA-CLIP: both towers learn, and a killed run is as one that was left alone."""

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
from pixclip.checkpoint import save_checkpoint
from pixclip.data.config import PartDataConfig
from pixclip.model import PixClip
from pixclip.training import run_parts
from pixclip.training.config import PartLossConfig, PartStage
from pixclip.training.job import PartJob, write_job
from pixclip.training.schedule import OptimizerConfig
from tests.pixclip.data.part_world import write_fgpart
from tests.pixclip.tiny_models import (
    save_clip_tokenizer,
    save_tiny_text_tower,
    tiny_clip,
    tiny_model,
)

ROOT = Path(__file__).parents[3]
NUM_STEPS = 60
SPEEDS = ("samples_per_s", "data_wait_share", "memory_gb")
STAGE = PartStage(
    name="parts",
    losses=PartLossConfig(),
    data=PartDataConfig(batch_size=3, parts_per_image=2, shuffle_shards=2),
    optimizer=OptimizerConfig(rest_lr=1e-3, warmup_steps=2, max_grad_norm=1.0),
    precision="fp32",
    num_steps=NUM_STEPS,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_fgpart(folder / "dataset")
    tokenizer = save_clip_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    config = tiny_clip(context_length=64, num_fixed_positions=20).config
    model = PixClip(config)
    torch.nn.init.constant_(model.logit_scale, 2.0)
    save_checkpoint(folder / "parent", model, text_tower=tokenizer)
    return folder


def job_of(world: Path, output: Path, **changes) -> PartJob:
    (output / "work").mkdir(parents=True, exist_ok=True)
    return PartJob(
        **{
            "stage": STAGE,
            "parent": str(world / "parent"),
            "dataset": str(world / "dataset"),
            "work": str(output / "work"),
            "checkpoint": str(output / "checkpoint"),
            "save_every_steps": 4,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def untouched(world, tmp_path_factory) -> PartJob:
    torch.set_num_threads(1)
    job = job_of(world, tmp_path_factory.mktemp("untouched"))
    assert run_parts.train(job)
    return job


def steps_of(job) -> list[dict]:
    lines = (Path(job.work) / "steps.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEEDS} for line in lines]


def test_both_towers_learn_and_the_checkpoint_reads_texts_by_itself(untouched, world):
    steps = steps_of(untouched)
    assert {"loss", "loss_short", "loss_long", "loss_part", "loss_hard"} < set(steps[0])
    first, last = (sum(step["loss"] for step in part) for part in (steps[:6], steps[-6:]))
    assert last < 0.8 * first
    trained, parent = pixclip.load(untouched.checkpoint), pixclip.load(world / "parent")
    before = parent.state_dict()
    for name, tensor in trained.state_dict().items():
        is_fixed = name in ("text.fixed_positions", "vision.mask_embed.weight")
        assert torch.equal(tensor, before[name]) == is_fixed, name
    texts = trained.encode_text(["short 1-00", "the long caption of a part"])
    assert texts.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_killed_run_gives_the_losses_of_one_that_was_not(untouched, world, tmp_path):
    job = job_of(world, tmp_path)
    path = Path(job.work) / "job.json"
    write_job(path, job)
    environment = {name: value for name, value in os.environ.items() if "RANK" not in name}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'model'}",
    }
    command = [sys.executable, "-m", "pixclip.training.run_parts", "--job", str(path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        steps = Path(job.work) / "steps.jsonl"
        while process.poll() is None:
            if steps.exists() and steps.read_text().count("\n") >= 7:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    assert run_parts.train(job)
    assert steps_of(job) == steps_of(untouched)
    one, other = (pixclip.load(done.checkpoint).state_dict() for done in (job, untouched))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_checkpointed_activations_give_the_same_losses(untouched, world, tmp_path):
    stage = STAGE.changed(gradient_checkpointing=True, num_steps=3)
    job = job_of(world, tmp_path, stage=stage)
    assert run_parts.train(job)
    for step, expected in zip(steps_of(job), steps_of(untouched), strict=False):
        assert step["loss"] == pytest.approx(expected["loss"], rel=0.05)


def test_a_model_that_reads_texts_by_a_language_model_is_refused(world, tmp_path):
    tower = save_tiny_text_tower(tmp_path / "tower")
    save_checkpoint(tmp_path / "parent", tiny_model(), text_tower=tower)
    with pytest.raises(ValueError, match="begin with a model of text"):
        run_parts.train(job_of(world, tmp_path, parent=str(tmp_path / "parent")))
