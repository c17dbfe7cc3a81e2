"""What is known of each rule after some chunks of a table."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.engine.rules import Rule
from data_contracts.engine.tables import FILE_COLUMN

NUM_EXAMPLES = 20


@dataclass
class RuleTotals:
    """What is known of one rule after some chunks."""

    rule: str
    column: str
    mostly: float
    max_keys: int
    tolerated: int = 0  # rows that may fail however few there are
    num_rows: int = 0
    num_missing: int = 0
    num_failing: int = 0
    has_unnamed_rows: bool = False  # a failing row without a key cannot be set aside
    keys: dict[str, None] = field(default_factory=dict)  # an ordered set
    values: list[tuple[str, str]] = field(default_factory=list)  # examples: key, value
    files: Counter[int] = field(default_factory=Counter)

    @property
    def is_met(self) -> bool:
        """Whether the share of failing values is within what the rule allows."""
        share = (1 - self.mostly) * (self.num_rows - self.num_missing) + 1e-9
        return self.num_failing <= max(share, self.tolerated)

    @property
    def is_full(self) -> bool:
        """Whether so many rows are named that looking for more is of no use."""
        return len(self.keys) >= self.max_keys

    def name_failing(self, chunk: pa.Table, key: str, rows: npt.NDArray[np.int64]) -> None:
        """Name failing rows of a chunk; those past `max_keys` are counted by file alone."""
        failing = chunk.select(list(dict.fromkeys([key, self.column, FILE_COLUMN]))).take(rows)
        self.files.update(failing[FILE_COLUMN].to_pylist())
        keys, values = failing[key].to_pylist(), failing[self.column].to_pylist()
        left = NUM_EXAMPLES - len(self.values)
        self.values += [
            (_shown(name), _shown(value))
            for name, value in zip(keys[:left], values[:left], strict=True)
        ]
        for name in keys:
            if name is None:
                self.has_unnamed_rows = True
            elif not self.is_full:
                self.keys[str(name)] = None


def _shown(value: object) -> str:
    if value is None:
        return "nan"  # as Great Expectations, which sees a table of pandas, shows what is missing
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def count_chunk(
    rules: dict[str, Rule], chunk: pa.Table, key: str, totals: dict[str, RuleTotals]
) -> None:
    """Add what one chunk says of each rule, by Arrow alone."""
    for name, rule in rules.items():
        values = chunk[rule.column].combine_chunks()
        sums, failing = totals[name], np.flatnonzero(rule.failing_rows(values))
        sums.num_rows += len(values)
        sums.num_missing += rule.num_missing(values)
        sums.num_failing += len(failing)
        if len(failing) and not sums.is_full:
            sums.name_failing(chunk, key, failing)
