"""A stopped adaptation goes on as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pixclip.text.adapt_job import STAGES
from tests.language_models import CAPTIONS, save_language_model

PROJECT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parents[1] / "training" / "golden_curves.json"


def test_a_stopped_adaptation_gives_the_losses_and_weights_of_an_undisturbed_one(tmp_path):
    save_language_model(tmp_path / "base")
    rows = [
        {"short_caption": short, "long_caption": long}
        for short, long in zip(CAPTIONS[::2], CAPTIONS[1::2], strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    process = subprocess.run(
        [sys.executable, "-m", "tests.pixclip.text.adapt_three_times", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    steps, stopped = (_steps(tmp_path / work) for work in ("undisturbed", "stopped"))
    assert len(steps) == 8
    assert stopped == steps
    golden = json.loads(GOLDEN.read_text())
    curve = [loss for stage in STAGES for loss in golden[stage]]
    assert [loss for _, loss, _ in steps] == pytest.approx(curve, rel=1e-2, abs=1e-3)
    weights, again = (
        load_file(tmp_path / work / "tower" / "model.safetensors")
        for work in ("undisturbed", "stopped")
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def _steps(work: Path) -> list[tuple[int, float, float]]:
    files = [work / stage / "steps.jsonl" for stage in STAGES]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [(line["step"], line["loss"], line["lr_lora"]) for line in lines]
