"""Great Expectations on one chunk of a table: the engine of record, for what is shown to people.

Great Expectations costs seconds to import: only functions of this module and of `data_docs` do.
"""

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts.engine.rules import Rule
from data_contracts.engine.totals import RuleTotals

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite


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


def suite_of(name: str, rules: dict[str, Rule]) -> "ExpectationSuite":
    """Rules as a suite of expectations, in their order."""
    import great_expectations as gx

    expectations = [rule.expectation(shown) for shown, rule in rules.items()]
    return gx.ExpectationSuite(name=name, expectations=expectations)


def validate_chunk(
    rules: dict[str, Rule], chunk: pa.Table, key: str, totals: dict[str, RuleTotals]
) -> None:
    """Add what one chunk says of each rule: a cheap look at all, then the rows of those broken.

    Raises:
        RuntimeError: a rule could not be evaluated.
    """
    used = list(dict.fromkeys(rule.column for rule in rules.values()))
    batch = gx_context().data_sources.pandas_default.read_dataframe(chunk.select(used).to_pandas())
    broken: dict[str, Rule] = {}
    for name, result in _results(batch, rules, "SUMMARY").items():
        sums = totals[name]
        sums.num_rows += result["element_count"]
        sums.num_missing += result.get("missing_count") or 0
        sums.num_failing += result["unexpected_count"]
        if result["unexpected_count"] and not sums.is_full:
            broken[name] = rules[name]
    if broken:
        for name, result in _results(batch, broken, "COMPLETE").items():
            rows = np.array(sorted(result["unexpected_index_list"]), dtype=np.int64)
            totals[name].name_failing(chunk, key, rows)


def _results(batch: Any, rules: dict[str, Rule], result_format: str) -> dict[str, dict[str, Any]]:
    """The results by rule, in the rules' order (Great Expectations sorts them otherwise)."""
    found = {}
    for outcome in batch.validate(suite_of("rules", rules), result_format=result_format).results:
        name = outcome.expectation_config.meta["rule"]
        if "unexpected_count" not in outcome.result:
            raise RuntimeError(f"rule {name} failed: {outcome.exception_info}")
        found[name] = outcome.result
    return {name: found[name] for name in rules}
