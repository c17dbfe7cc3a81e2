"""Adding a step touches five places, as CONTRIBUTING says; then every runner knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEP = '''"""`pixclip count-files`: how many files an export has."""

from pydantic import Field

from components.core.step import In, Metrics, Out, StepSettings, step


class CountFilesSettings(StepSettings):
    """Which files count."""

    ending: str = Field("", description="ending of the files that count; empty: of all")


@step(image="data")
def count_files(exports: In, counted: Out, settings: CountFilesSettings) -> Metrics:
    """Count the files of an export."""
    files = [path for path in exports.iterdir() if path.name.endswith(settings.ending)]
    counted.mkdir()
    (counted / "number.txt").write_text(f"{len(files)}\\n")
    return {"num_files": len(files)}
'''
STAGE = """
  count_files:
    cmd: >-
      pixclip count-files --exports ${run}/exports --counted ${run}/counted
      --params params/longgrit.yaml
    params:
      - params/longgrit.yaml: [count_files]
    deps:
      - ${run}/exports
    outs:
      - ${run}/counted
"""
THROUGH_KFP = """
from pathlib import Path
from components.orchestration.local import StepRun, open_backend
inputs, outputs = {"exports": Path("runs/dvc/exports")}, {"counted": Path("runs/kfp/counted")}
metrics = open_backend("local").run(StepRun("count_files", inputs, outputs, {"ending": ".json"}))
assert metrics == {"num_files": 1}, metrics
"""


def insert(path: Path, after: str, text: str) -> None:
    old = path.read_text()
    assert after in old, f"{path} has no {after!r}"
    path.write_text(old.replace(after, after + text, 1))


def run(project: Path, *command: str) -> str:
    """What a command prints that only sees the copy of the project."""
    folders = [str(project), str(project / "model")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIXCLIP_HOME": str(project),
        "DVC_NO_ANALYTICS": "true",
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with one more step, which any export can be given to."""
    copy = tmp_path_factory.mktemp("project")
    for folder in ("components", "data_contracts", "model", "params"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run(copy, "git", "init", "--quiet")
    run(copy, "git", "add", "-A")
    (copy / "runs/dvc/exports").mkdir(parents=True)
    (copy / "runs/dvc/exports/one.json").write_text("{}")
    (copy / "runs/dvc/exports/two.parquet").write_text("")

    (copy / "components/count_files.py").write_text(STEP)
    module = '    "count_files": "components.count_files",\n'
    insert(copy / "components/steps.py", "STEPS = {\n", module)
    artifact = '    "counted": Artifact("how many files an export has"),\n'
    insert(copy / "components/core/step.py", "ARTIFACTS = {\n", artifact)
    with (copy / "params/longgrit.yaml").open("a") as file:
        file.write("\ncount_files: {}\n")
    run(copy, sys.executable, "-m", "components.core.params", "params/longgrit.yaml")
    insert(copy / "dvc.yaml", "\nstages:", STAGE)
    return copy


@pytest.mark.slow
def test_a_step_is_five_places_and_its_settings_are_told(project):
    changed = {
        line[3:] for line in run(project, "git", "status", "--short").splitlines() if line[1] != " "
    }
    assert changed == {
        "components/count_files.py",
        "components/steps.py",
        "components/core/step.py",
        "params/longgrit.yaml",
        "dvc.yaml",
    }
    told = '  ending: ""  # ending of the files that count; empty: of all\n'
    assert told in (project / "params/longgrit.yaml").read_text()


@pytest.mark.slow
def test_the_command_line_runs_it(project):
    paths = ["--exports", "runs/dvc/exports", "--counted", "runs/mine/counted"]
    said = run(project, "pixclip", "count-files", *paths, "--params", "params/longgrit.yaml")
    assert said == "count_files:\n  num_files: 2\n"


@pytest.mark.slow
def test_kubeflow_runs_it(project):
    run(project, sys.executable, "-c", THROUGH_KFP)
    assert (project / "runs/kfp/counted/number.txt").read_text() == "1\n"


@pytest.mark.slow
def test_dvc_runs_it_once(project):
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "count_files"]
    assert "Running stage 'count_files'" in run(project, *command)
    assert (project / "runs/dvc/counted/number.txt").read_text() == "2\n"
    assert "Stage 'count_files' didn't change, skipping" in run(project, *command)
