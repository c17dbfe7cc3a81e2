"""Check tables against their contracts with Great Expectations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_contracts.contract import Contract, load_contract
from data_contracts.reading import decoded_batches, num_rows, read_schema
from data_contracts.rules import (
    Join,
    join_column,
    join_rule,
    key_occurrences,
    key_rules,
    missing_values,
    named_suite,
)
from data_contracts.tables import FILE_COLUMN, AddColumns, Columns, list_tables, read_chunks
from data_contracts.validation import RuleTotals, validate_chunk

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

MIN_KEYS = 1000  # of failing rows that are named even if fewer may be set aside


@dataclass(frozen=True)
class RuleFailure:
    """A rule that rows of a table break; no `keys` means that the table as a whole breaks it.

    Far past the budget not every failing row is named in `keys`; `num_rows` counts them all.
    """

    rule: str
    num_rows: int
    keys: tuple[str, ...]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.examples[:3])
        return f"{self.rule}: {self.num_rows} row(s)" + (f", e.g. {shown}" if shown else "")


@dataclass(frozen=True)
class ContractResult:
    """The outcome of checking one artifact."""

    artifact: str
    num_rows: int
    failures: tuple[RuleFailure, ...]
    totals: tuple[RuleTotals, ...] = ()  # every rule, met or not
    tables: tuple[Path, ...] = ()  # `RuleTotals.files` counts by place in this list


def check_table(
    artifact: str, path: Path, related: Mapping[str, Path] | None = None
) -> ContractResult:
    """Check every table of an artifact in bounded memory.

    `related` are other artifacts by name: the contract's joins to them are checked too.

    Raises:
        ValueError: the artifact has no contract.
        TableError: a file cannot be read as Parquet.
    """
    contract = load_contract(artifact)
    if contract is None:
        raise ValueError(f"artifact {artifact} has no contract")
    tables = list_tables(path)
    faults = _schema_faults(contract, tables, path)
    if faults:
        failure = RuleFailure("schema_as_declared", len(faults), (), tuple(faults))
        return ContractResult(artifact, 0, (failure,), (), tuple(tables))
    total = sum(map(num_rows, tables))
    # A table without rows breaks no rule; saying so need not cost an import of seconds.
    totals = _check_rows(contract, tables, total, related or {}) if total else ()
    failures = tuple(_failure(sums) for sums in totals if not sums.is_met)
    return ContractResult(artifact, total, failures, totals, tuple(tables))


def _check_rows(
    contract: Contract, tables: Sequence[Path], total: int, related: Mapping[str, Path]
) -> tuple[RuleTotals, ...]:
    joins = [join for join in contract.joins if join.artifact in related]
    suite = full_suite(contract, joins)
    max_keys = max(MIN_KEYS, int(contract.budget * total) + 1)
    totals = _fresh_totals(suite, max_keys, getattr(contract.module, "TOLERATED_ROWS", 0))
    adders = _adders(contract, tables, joins, related)
    read = getattr(contract.module, "batches", decoded_batches)
    for chunk in read_chunks(tables, contract.columns, read):
        validate_chunk(suite, _frame(suite, contract, chunk, adders), contract.key, totals)
    return tuple(totals.values())


def full_suite(contract: Contract, joins: Sequence[Join] = ()) -> "ExpectationSuite":
    """The contract's rules with those on its key, on required values and on joins."""
    rules = key_rules(contract.key, is_unique=contract.key_scope != "none")
    own = {rule.meta["rule"]: rule for rule in contract.module.suite().expectations}
    return named_suite(
        contract.artifact, {**rules, **own, **{join.rule: join_rule(join) for join in joins}}
    )


def _schema_faults(contract: Contract, tables: Sequence[Path], path: Path) -> list[str]:
    if not tables:
        return [f"{path.name} holds no Parquet file"]
    faults = (fault for table in tables for fault in contract.schema_faults(read_schema(table)))
    return list(dict.fromkeys(faults))


def _fresh_totals(
    suite: "ExpectationSuite", max_keys: int, tolerated: int
) -> dict[str, RuleTotals]:
    """Totals by rule; `tolerated` rows may break a rule that need not hold for all."""
    totals = {}
    for rule in suite.expectations:
        name, mostly = rule.meta["rule"], float(getattr(rule, "mostly", 1.0))
        few = tolerated if mostly < 1 else 0
        totals[name] = RuleTotals(name, rule.column, mostly, max_keys, few)
    return totals


def _adders(
    contract: Contract, tables: Sequence[Path], joins: Sequence[Join], related: Mapping[str, Path]
) -> list[AddColumns]:
    adders = [missing_values(contract.schema)]
    if contract.key_scope != "none":
        adders.append(key_occurrences(tables, contract.key, contract.key_scope == "file"))
    if hasattr(contract.module, "prepare"):
        adders.append(contract.module.prepare)
    if hasattr(contract.module, "survey"):
        adders.append(contract.module.survey(tables))
    return [*adders, *(join_column(join, related[join.artifact]) for join in joins)]


def _frame(
    suite: "ExpectationSuite", contract: Contract, chunk: pa.Table, adders: Sequence[AddColumns]
) -> "pd.DataFrame":
    """The columns that rules look at, and those that name a row."""
    derived: Columns = {}
    for add in adders:
        derived.update(add(chunk))
    used = {contract.key, FILE_COLUMN, *(rule.column for rule in suite.expectations)}
    kept = [name for name in chunk.column_names if name in used and name not in derived]
    table = chunk.select(kept)
    for name, values in derived.items():
        if name in used:
            table = table.append_column(name, pa.array(values))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _failure(sums: RuleTotals) -> RuleFailure:
    keys: tuple[str, ...] = () if sums.has_unnamed_rows else tuple(sums.keys)
    examples = tuple(f"{key} ({sums.column}={value})" for key, value in sums.values)
    return RuleFailure(sums.rule, sums.num_failing, keys, examples)
