"""Two ranks that share a batch do what one rank does with all of it (real processes, gloo)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pixclip.training import two_ranks

ROOT = Path(__file__).parents[3]
PROGRAM = Path(two_ranks.__file__)


def launch(program: Path, num_ranks: int, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_ranks), str(program), *arguments]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'model'}",
    }
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two ranks left what they found, for each objective."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(PROGRAM, 2, str(folder))
    return folder


@pytest.fixture(scope="module", params=two_ranks.WORLDS)
def results(request, folder):
    """What one rank found, and what each of two found."""
    pair = [torch.load(folder / f"{request.param}-2-{rank}.pt") for rank in (0, 1)]
    return [two_ranks.run(two_ranks.WORLDS[request.param]), *pair]


def test_gradients_of_two_ranks_are_those_of_the_big_batch_parameter_by_parameter(results):
    alone, *pair = results
    for one in pair:
        assert one["gradients"].keys() == alone["gradients"].keys()
        for name, expected in alone["gradients"].items():
            torch.testing.assert_close(
                one["gradients"][name], expected, rtol=1e-4, atol=1e-6, msg=name
            )


def test_steps_of_two_ranks_through_zero_2_are_those_of_the_big_batch(results):
    alone, *pair = results
    for one in pair:
        for step, expected in zip(one["losses"], alone["losses"], strict=True):
            assert step == pytest.approx(expected, rel=1e-4)
        assert one["norms"] == pytest.approx(alone["norms"], rel=1e-3)
        for name, expected in alone["weights"].items():
            torch.testing.assert_close(
                one["weights"][name], expected, rtol=1e-3, atol=2e-4, msg=name
            )


def test_both_ranks_hold_the_same_weights(results):
    _, first, second = results
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
