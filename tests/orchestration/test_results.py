"""What `pixclip summary` says of a trained model."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli import cli

NUMBERS = {"scene_accuracy": 0.8125, "mask_to_text_r1": 0.25, "text_to_mask_r1": 0.125}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with an evaluation and a decision, as the steps write them."""
    evaluation = {
        "protocol": "longgrit-regions/1",
        "data": {"num_regions": 168, "num_images": 60},
        "metrics": {"all": NUMBERS, "held_out_objects": {"scene_accuracy": 0.5}},
        "chance": {"all": {"scene_accuracy": 0.333}},
        "baselines": {"whole_image": {"all": {"scene_accuracy": 0.34}}},
    }
    report = {"headline": "Kept: version 2 did not become the champion", "reason": "Not passed: x."}
    for name, file, content in (
        ("evaluation", "evaluation.json", evaluation),
        ("promotion", "report.json", report),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    (tmp_path / "evaluation" / "evaluation.html").touch()
    return tmp_path


def test_the_model_is_shown_beside_its_baselines_with_the_decision_and_the_pages(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(run)
    done = CliRunner().invoke(cli, ["summary", str(run)])
    assert done.exit_code == 0, done.output
    rows = {line.split("│")[1].strip(): line for line in done.output.splitlines() if "│" in line}
    assert "0.812" in rows["all"]
    assert "0.333" in rows["chance"]
    assert "0.340" in rows["baseline whole image"]
    assert "0.500" in rows["held out objects"]
    assert "168 regions, 60 images" in done.output
    assert "Kept: version 2" in done.output
    assert "Not passed: x." in done.output
    assert "evaluation/evaluation.html" in done.output
