"""Great Expectations on one chunk of a table, its results summed over chunks.

Great Expectations costs seconds to import: only functions of this package import it.
"""

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from data_contracts.tables import FILE_COLUMN

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

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

    def add_failing(self, key: object, value: object, file_index: int) -> None:
        """Count in one failing row; rows past `max_keys` are counted but not named."""
        self.files[file_index] += 1
        if len(self.values) < NUM_EXAMPLES:
            self.values.append((str(key), _shown(value)))
        if key is None or key != key:
            self.has_unnamed_rows = True
        elif len(self.keys) < self.max_keys:
            self.keys[str(key)] = None


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


@cache
def gx_context() -> Any:
    """The context in which this process validates."""
    return fresh_context()


def fresh_context() -> Any:
    """A Great Expectations context that stores nothing and sends nothing."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    for noisy in ("great_expectations", ProgressBarsConfig.__module__):  # which has its own level
        logging.getLogger(noisy).setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def validate_chunk(
    suite: "ExpectationSuite", frame: "pd.DataFrame", key: str, totals: dict[str, RuleTotals]
) -> None:
    """Add one chunk's results: a cheap look at all rules, then the failing rows of those broken.

    Raises:
        RuntimeError: a rule could not be evaluated.
    """
    import great_expectations as gx

    batch = gx_context().data_sources.pandas_default.read_dataframe(frame)
    broken = []
    for expectation, result in zip(
        suite.expectations, _results(batch, suite, "SUMMARY"), strict=True
    ):
        sums = totals[expectation.meta["rule"]]
        sums.num_rows += result["element_count"]
        sums.num_missing += result.get("missing_count") or 0
        sums.num_failing += result["unexpected_count"]
        if result["unexpected_count"] and not sums.is_full:
            broken.append(expectation)
    if broken:
        complete = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": list(dict.fromkeys([key, FILE_COLUMN])),
        }
        failing = gx.ExpectationSuite(name=suite.name, expectations=broken)
        for expectation, result in zip(broken, _results(batch, failing, complete), strict=True):
            for row in result["unexpected_index_list"]:
                totals[expectation.meta["rule"]].add_failing(
                    row[key], row.get(expectation.column), int(row[FILE_COLUMN])
                )


def _results(batch: Any, suite: "ExpectationSuite", result_format: Any) -> list[dict[str, Any]]:
    """The results in the suite's order (Great Expectations sorts them otherwise)."""
    by_rule = {}
    for outcome in batch.validate(suite, result_format=result_format).results:
        rule = outcome.expectation_config.meta["rule"]
        if "unexpected_count" not in outcome.result:
            raise RuntimeError(f"rule {rule} of {suite.name} failed: {outcome.exception_info}")
        by_rule[rule] = outcome.result
    return [by_rule[expectation.meta["rule"]] for expectation in suite.expectations]
