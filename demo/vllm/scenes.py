"""A few regions to describe: the first steps of the pipeline on a handful of composed scenes."""

from pathlib import Path

from components.core.run import run_step
from components.core.step import load_step

GROUP = "00000"
Settings = dict[str, object]


def prepare_regions(work: Path, photographs: Path, num_scenes: int) -> tuple[Path, Path]:
    """The `regions` and `images` artifacts of so many scenes of three objects."""
    grit, records, images = work / "grit", work / "records", work / "images"
    candidates, regions = work / "candidates", work / "regions"
    sample: Settings = {
        "num_scenes": num_scenes,
        "fault_share": 0.0,
        "photographs": str(photographs),
    }
    _run("sample_grit", {}, {"grit": grit}, sample)
    _run("select", {"grit": grit}, {"records": records}, {})
    group = {"records": records / GROUP}
    _run("ingest", group, {"images": images / GROUP}, {"file_root": str(grit)})
    both = {"records": records, "images": images}
    _run("deduplicate", both, {"candidates": candidates}, {})
    group = {"candidates": candidates / GROUP, "images": images / GROUP}
    _run("segment", group, {"regions": regions / GROUP}, {"source": "record"})
    return regions / GROUP, images / GROUP


def _run(name: str, inputs: dict[str, Path], outputs: dict[str, Path], settings: Settings) -> None:
    step = load_step(name)
    if "quarantine" in step.outputs:
        first = next(iter(outputs.values()))
        run = first.parent.parent if first.name == GROUP else first.parent
        outputs = {**outputs, "quarantine": run / "quarantine" / f"{name}.parquet"}
    run_step(step, inputs, outputs, settings)
