"""Great Expectations Data Docs of results that were summed over chunks.

Great Expectations costs seconds to import: only functions of `engine` import it.

The pages come out as Great Expectations makes them: they need scripts and styles from other
hosts (`components.data.check` makes them readable without) and do not escape values, so that is
done here. The run's time is fixed, so that the same results give the same pages.
"""

import html
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts.engine.check import ContractResult, RuleTotals
from data_contracts.engine.contract import Contract
from data_contracts.engine.rules import Rule

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

RUN_NAME = "check"
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
SITE = {
    "class_name": "SiteBuilder",
    "show_how_to_buttons": False,
    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False},
}


def build_site(folder: Path, contract: Contract, results: Mapping[str, ContractResult]) -> None:
    """Write the site: a page for the suite, and one for every named result."""
    from great_expectations.core import RunIdentifier

    context = fresh_context()
    place = str(folder).replace("$", r"\$")  # a dollar sign begins the name of a variable
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": place}
    context.add_data_docs_site("site", {**SITE, "store_backend": store})
    rules = contract.rules()
    suite = suite_of(contract.artifact, rules)
    for expectation in suite.expectations:
        name = expectation.meta["rule"]
        expectation.description = rules[name].described(name)
    suite = context.suites.add(suite)
    run = RunIdentifier(run_name=RUN_NAME, run_time=NO_TIME)
    for name, result in results.items():
        outcome = _suite_result(suite, result, run, name)
        context.validation_results_store.set(_identifier(suite.name, run, name), outcome)
    context.build_data_docs(site_names=["site"])


def _suite_result(suite: Any, result: ContractResult, run: Any, name: str) -> Any:
    import great_expectations as gx
    from great_expectations.core import ExpectationSuiteValidationResult

    totals = {sums.rule: sums for sums in result.totals}
    empty = {
        rule.meta["rule"]: RuleTotals(rule.meta["rule"], "", 1, 0) for rule in suite.expectations
    }
    outcomes = [
        _rule_result(rule, totals.get(rule.meta["rule"], empty[rule.meta["rule"]]))
        for rule in suite.expectations
    ]
    num_met = sum(outcome.success for outcome in outcomes)
    return ExpectationSuiteValidationResult(
        success=num_met == len(outcomes),
        results=outcomes,
        suite_name=suite.name,
        statistics={
            "evaluated_expectations": len(outcomes),
            "successful_expectations": num_met,
            "unsuccessful_expectations": len(outcomes) - num_met,
            "success_percent": 100 * num_met / len(outcomes),
        },
        meta={
            "run_id": run,
            "great_expectations_version": gx.__version__,
            "batch_spec": {"data_asset_name": name},
        },
    )


def _rule_result(rule: Any, sums: RuleTotals) -> Any:
    from great_expectations.core import ExpectationValidationResult

    num_present = sums.num_rows - sums.num_missing
    share = 100 * sums.num_failing / max(num_present, 1)
    values = [html.escape(f"{key}: {value}").replace("$", "&#36;") for key, value in sums.values]
    return ExpectationValidationResult(
        success=sums.is_met,
        expectation_config=rule.configuration,
        meta={},
        exception_info={
            "raised_exception": False,
            "exception_message": None,
            "exception_traceback": None,
        },
        result={
            "element_count": sums.num_rows,
            "missing_count": sums.num_missing,
            "missing_percent": 100 * sums.num_missing / max(sums.num_rows, 1),
            "unexpected_count": sums.num_failing,
            "unexpected_percent": share,
            "unexpected_percent_nonmissing": share,
            "unexpected_percent_total": 100 * sums.num_failing / max(sums.num_rows, 1),
            "partial_unexpected_list": values,
            "partial_unexpected_counts": [{"value": value, "count": 1} for value in values],
        },
    )


def _identifier(suite: str, run: Any, name: str) -> Any:
    from great_expectations.data_context.types import resource_identifiers as identifiers

    return identifiers.ValidationResultIdentifier(
        expectation_suite_identifier=identifiers.ExpectationSuiteIdentifier(suite),
        run_id=run,
        batch_identifier=name,
    )


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
