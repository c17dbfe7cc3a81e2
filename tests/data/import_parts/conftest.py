"""The step, and those after it, on small sources."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.receipts import Receipt
from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import Row, read_rows


@dataclass(frozen=True)
class Imported:
    """What the step made."""

    receipt: Receipt
    rows: list[Row]
    quarantine: list[Row]

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.receipt.metrics)

    @property
    def reasons(self) -> dict[str, str]:
        """`source/file:line` -> reason."""
        return {row["region_id"]: row["reason"] for row in self.quarantine}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Imported]:
    """Run the step with settings; small sources may lose whatever they lose."""

    def run(**settings: Any) -> Imported:
        outputs = {name: tmp_path / "run" / name for name in ("grit", "quarantine.parquet")}
        grit, quarantine = outputs.values()
        receipt = run_step(
            load_step("import_parts"),
            {},
            {"grit": grit, "quarantine": quarantine},
            {"max_lost_share": 1.0, **settings},
        )
        return Imported(receipt, list(read_rows(grit)), list(read_rows(quarantine)))

    return run
