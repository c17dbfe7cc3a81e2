"""The data image, built by a real engine, does what the same component does in a process."""

import json
import subprocess
from pathlib import Path

import pytest

from components.core.tables import write_rows
from components.orchestration.local import StepRun, open_backend
from data_contracts.grit import SAMPLE_SCHEMA

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def data_image(docker_client, build_module) -> str:
    """The name of the data image, built from this very tree."""
    build_module.require_base(docker_client)
    return build_module.build(docker_client, "data")


def run_in(docker_client, image, *command, user=None) -> str:
    options = ["--user", user] if user else []
    return subprocess.run(
        [docker_client, "run", "--rm", "--network=none", *options, image, *command],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def grit(folder: Path) -> Path:
    """A few records, some of which the filters drop."""
    rows = [
        {
            "key": f"{i:09d}",
            "clip_similarity_vitb32": 0.3,
            "clip_similarity_vitl14": 0.3,
            "id": i,
            "url": f"https://pictures.example/{i}.jpg",
            "caption": f"a red car number {i} on the street",
            "width": 640,
            "height": 480,
            "noun_chunks": [],
            "ref_exps": [[0.0, 9.0, 0.1, 0.1, 0.5, 0.5, score] for score in (0.9, 0.1)],
            "masks": None,
            "split": "",
            "subset": "",
            "fault": "",
        }
        for i in range(6)
    ]
    write_rows(folder / "part-00000.parquet", rows, SAMPLE_SCHEMA)
    return folder


def published(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_component_gives_the_same_bytes_in_a_container_and_in_a_process(
    data_image, tmp_path, monkeypatch
):
    source = grit(tmp_path / "grit")
    metrics = {}
    for backend in ("local", "docker"):
        out = tmp_path / backend
        outputs = {"records": out / "records", "quarantine": out / "quarantine.parquet"}
        run = StepRun("select", {"grit": source}, outputs, {})
        metrics[backend] = open_backend(backend).run(run)
    assert metrics["docker"] == metrics["local"]
    assert metrics["docker"]["regions_in"] == 12
    files = published(tmp_path / "docker")
    assert any(name.endswith(".parquet") for name in files)
    assert files == published(tmp_path / "local")


def test_the_image_runs_the_command_line_as_any_user_but_root(docker_client, data_image):
    assert "segment" in run_in(docker_client, data_image)
    assert run_in(docker_client, data_image, "id", "-u").strip() != "0"
    script = "touch $HOME/file && pixclip select --help"
    told = run_in(docker_client, data_image, "sh", "-c", script, user="4242:4242")
    assert "--records" in told


def test_the_image_holds_no_torch_and_no_secret(docker_client, data_image):
    told = subprocess.run(
        [docker_client, "image", "inspect", data_image], check=True, capture_output=True, text=True
    )
    config = json.loads(told.stdout)[0]["Config"]
    assert not config["Entrypoint"]
    assert config["User"] not in {"", "0", "root"}
    assert not [line for line in config["Env"] if line.startswith(("PIP_", "SSL_", "HTTP"))]
    script = (
        "import importlib.util, pathlib; assert importlib.util.find_spec('torch') is None; "
        "assert not any(pathlib.Path('/run').glob('secrets/*'))"
    )
    run_in(docker_client, data_image, "python", "-c", script)
