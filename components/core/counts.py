"""Count what goes in, what comes out and what is dropped, and keep what is dropped."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core.step import Metrics
from components.core.tables import Row, write_rows
from data_contracts.quarantine import SCHEMA
from data_contracts.reasons import is_known

ROWS_IN, ROWS_OUT, ROWS_QUARANTINED = "regions_in", "regions_out", "regions_quarantined"
ROWS_FOUND = "regions_found"  # new regions, of a step that looks for some
REASON_PREFIX = "quarantined."


def quarantine_row(step: str, row: Row, reason: str, detail: str = "") -> Row:
    """The quarantine's form of a dropped region row.

    Raises:
        ValueError: `data_contracts/reasons.py` does not know the reason.
    """
    if not is_known(step, reason):
        raise ValueError(f"{step} has no reason '{reason}'; describe it in data_contracts/reasons")
    return {
        "region_id": row["region_id"],
        "record_id": row["record_id"],
        "step": step,
        "reason": reason,
        "detail": detail,
        "url": row["url"],
        "phrase": row["phrase"],
        "image_sha256": row.get("image_sha256"),
        "row": row_json(row),
    }


def row_json(row: Row) -> str:
    """A row as JSON that every reader takes: null for NaN and infinity, which JSON has not.

    Lone surrogates are escaped, as JSON allows, so that the row can be put back as it was.
    """
    text = json.dumps(_finite(row), sort_keys=True, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def write_quarantine(path: Path, rows: Iterable[Row]) -> int:
    """Write the rows that `quarantine_row` made to one Parquet file."""
    return write_rows(path, rows, SCHEMA)


def region_counts(regions_in: int, regions_out: int, reasons: Counter[str], **more: Any) -> Metrics:
    """A step's metrics; what came in and was found must equal what came out and was quarantined."""
    return {
        ROWS_IN: regions_in,
        ROWS_OUT: regions_out,
        ROWS_QUARANTINED: reasons.total(),
        **{f"{REASON_PREFIX}{reason}": count for reason, count in sorted(reasons.items())},
        **more,
    }


def reasons_in(metrics: Mapping[str, int | float]) -> dict[str, int]:
    """How many regions went to the quarantine for each reason, from a step's metrics."""
    return {
        name.removeprefix(REASON_PREFIX): int(count)
        for name, count in metrics.items()
        if name.startswith(REASON_PREFIX)
    }
