"""A small LongGRIT data set of drawn scenes, made by the step `pack` itself."""

from pathlib import Path
from typing import Any

from components.core.run import run_step
from components.core.step import load_step
from tests.data.pack.conftest import build_run


def make_longgrit(folder: Path, num_images: int = 12, **settings: Any) -> Path:
    """Pack drawn scenes of three regions each into `folder`, which is also given."""
    run = build_run(folder.with_name(f"{folder.name}-run"), num_images=num_images)
    settings = {"benchmark_regions": 9, "benchmark_max_share": 0.4, "val_share": 0.1, **settings}
    run_step(load_step("pack"), run.inputs, {"longgrit": folder}, settings)
    return folder
