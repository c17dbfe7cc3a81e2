"""The step on small copies of FineHARD."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import Row, read_rows


@dataclass(frozen=True)
class Imported:
    """What the step made."""

    folder: Path
    metrics: dict[str, Any]

    @property
    def outputs(self) -> dict[str, Path]:
        names = {"captions": "captions", "images": "images"}
        quarantine = {"quarantine": "quarantine/import_finehard.parquet"}
        return {name: self.folder / place for name, place in {**names, **quarantine}.items()}

    @property
    def rows(self) -> list[Row]:
        return list(read_rows(self.outputs["captions"]))

    @property
    def quarantine(self) -> list[Row]:
        return list(read_rows(self.outputs["quarantine"]))

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Reason, and what of file, entry and box the detail begins with."""
        return [(row["reason"], row["detail"].partition(":")[0]) for row in self.quarantine]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Imported]:
    """Run the step; small sources may lose whatever they lose."""

    def run(annotations: Any, images: Any, name: str = "run", **settings: Any) -> Imported:
        made = Imported(tmp_path / name, {})
        settings = {
            "annotations": str(annotations),
            "images": str(images),
            "max_lost_share": 1.0,
            "max_missing_share": 1.0,
            "images_per_group": 5,
            **settings,
        }
        receipt = run_step(load_step("import_finehard"), {}, made.outputs, settings)
        return Imported(made.folder, dict(receipt.metrics))

    return run
