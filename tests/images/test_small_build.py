"""A small data set, built in processes and in the images: the same bytes."""

from pathlib import Path

import pytest

from components.core.step import Metrics
from components.orchestration.local import StepRun, open_backend
from tests.data.sample_grit.stand_ins import draw_photographs

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PACK = {
    "benchmark_regions": 8, "benchmark_max_share": 0.4, "val_share": 0.2,
    "images_per_shard": 4, "near_duplicate_distance": 0,
}  # fmt: skip


def build(backend: str, folder: Path, photographs: Path) -> dict[str, Metrics]:
    """Run the steps of `longgrit_build` below a folder; gives their metrics."""
    scenes = {"num_scenes": 12, "width_px": 320, "height_px": 240, "photographs": str(photographs)}
    steps = [
        ("sample_grit", {}, {"grit": "grit"}, scenes),
        ("select", {"grit": "grit"}, kept("records", "records"), {}),
        ("ingest", {"records": "records/00000"}, kept("images", "images/00000"),
         {"file_root": str(folder / "grit")}),
        ("deduplicate", {"records": "records", "images": "images"},
         kept("candidates", "candidates"), {"max_phash_distance": -1}),
        ("segment", {"candidates": "candidates/00000", "images": "images/00000"},
         kept("regions", "regions/00000"), {"fallback": "grabcut"}),
        ("describe", {"regions": "regions/00000", "images": "images/00000"},
         kept("captions", "captions/00000") | {"ledger": "ledger/00000.json"},
         {"min_accepted_share": 0.0}),
        ("pack", {"captions": "captions", "images": "images", "quarantines": "quarantine"},
         {"longgrit": "longgrit"}, PACK),
        ("export", {"dataset": "longgrit"}, {"exports": "exports"}, {}),
        ("check", {"checked": "longgrit"}, {"data_docs": "docs"}, {"artifact": "longgrit"}),
    ]  # fmt: skip
    return {
        step: open_backend(backend).run(
            StepRun(
                step,
                {name: folder / path for name, path in inputs.items()},
                {name: folder / path for name, path in outputs.items()},
                settings,
            )
        )
        for step, inputs, outputs, settings in steps
    }


def kept(name: str, path: str) -> dict[str, str]:
    """An output, with the quarantine of what its step drops."""
    return {name: path, "quarantine": f"quarantine/{path.replace('/', '-')}.parquet"}


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_build_gives_the_same_bytes_in_containers_and_in_processes(image, tmp_path, monkeypatch):
    # Without a network, and with a root file system that can only be read (docker_runner).
    monkeypatch.setenv("PIXCLIP_DOCKER_NETWORK", "none")
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    image("data"), image("annotate")
    photographs = draw_photographs(tmp_path / "photographs")
    metrics = {name: build(name, tmp_path / name, photographs) for name in ("local", "docker")}
    assert metrics["docker"] == metrics["local"]
    assert metrics["local"]["pack"]["regions_out"] > 0
    made = {name: files(tmp_path / name / "longgrit") for name in metrics}
    assert any(name.endswith(".tar") for name in made["local"])
    assert made["docker"] == made["local"]
