"""`dvc repro` on the first stage of dvc.yaml, in a project of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.sample_grit.photographs import DEFAULT_FOLDER

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ROOT / DEFAULT_FOLDER


@pytest.fixture
def project(tmp_path) -> Path:
    """The pipeline's files in a fresh Git repository, with a smaller sample."""
    params = [f"params/{path.name}" for path in sorted((ROOT / "params").glob("*.yaml"))]
    for name in ("dvc.yaml", *params, ".dvcignore", ".gitignore", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(text.replace("num_scenes: 60", "num_scenes: 4"))
    (tmp_path / DEFAULT_FOLDER).parent.mkdir(parents=True)
    (tmp_path / DEFAULT_FOLDER).symlink_to(PHOTOGRAPHS)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def repro(project: Path, target: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "true"}
    command = [sys.executable, "-m", "dvc", "repro", target]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="no photographs: `make setup` fetches them")
def test_dvc_repro_does_nothing_the_second_time(project):
    assert "Running stage 'sample_grit'" in repro(project, "sample_grit")
    assert (project / "runs/dvc/grit/_receipt.json").exists()
    assert "Stage 'sample_grit' didn't change, skipping" in repro(project, "sample_grit")
