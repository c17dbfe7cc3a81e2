"""Check an artifact's tables against its contract, and sum the results over chunks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.engine.contract import (
    Contract,
    join_column,
    key_occurrences,
    load_contract,
    missing_values,
)
from data_contracts.engine.reading import decoded_batches, num_rows, read_schema
from data_contracts.engine.rules import Rule
from data_contracts.engine.tables import (
    FILE_COLUMN,
    AddColumns,
    Columns,
    list_tables,
    read_chunks,
)

NUM_EXAMPLES = 20
MIN_KEYS = 1000  # of failing rows that are named even if fewer may be set aside


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


Evaluate = Callable[[dict[str, Rule], pa.Table, str, dict[str, RuleTotals]], None]


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


def check_table(
    artifact: str,
    path: Path,
    related: Mapping[str, Path] | None = None,
    *,
    has_receipt: bool = False,
    evaluate: Evaluate = count_chunk,
) -> ContractResult:
    """Check every table of an artifact in bounded memory.

    `related` are other artifacts by name: the contract's joins to them are checked too.
    `has_receipt`: these very bytes met this very contract before, so the rules of its `PARSED`
    columns count as met. `evaluate` is `count_chunk`, or Great Expectations' `validate_chunk`.

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
    joins = [join for join in contract.joins if join.artifact in (related or {})]
    rules = contract.rules(joins)
    totals = _fresh_totals(contract, rules, total)
    if total:  # a table without rows breaks no rule
        known = contract.parsed_rules(rules) if has_receipt else {}
        for name in known:
            totals[name].num_rows = total
        unknown = {name: rule for name, rule in rules.items() if name not in known}
        adders = _adders(contract, tables, bool(known))
        adders += [join_column(join, (related or {})[join.artifact]) for join in joins]
        read = getattr(contract.module, "batches", decoded_batches)
        for chunk in read_chunks(tables, contract.columns(is_parsed=bool(known)), read):
            evaluate(unknown, _derived(chunk, adders), contract.key, totals)
    shown = tuple(totals.values()) if total else ()
    failures = tuple(_failure(sums) for sums in shown if not sums.is_met)
    return ContractResult(artifact, total, failures, shown, tuple(tables))


def _schema_faults(contract: Contract, tables: Sequence[Path], path: Path) -> list[str]:
    if not tables:
        return [f"{path.name} holds no Parquet file"]
    faults = (fault for table in tables for fault in contract.schema_faults(read_schema(table)))
    return list(dict.fromkeys(faults))


def _fresh_totals(
    contract: Contract, rules: Mapping[str, Rule], total: int
) -> dict[str, RuleTotals]:
    """Totals by rule; a few rows may be let off a rule that need not hold for all."""
    max_keys = max(MIN_KEYS, int(contract.budget * total) + 1)
    tolerated = getattr(contract.module, "TOLERATED_ROWS", 0)
    return {
        name: RuleTotals(
            name, rule.column, rule.mostly, max_keys, tolerated if rule.mostly < 1 else 0
        )
        for name, rule in rules.items()
    }


def _adders(contract: Contract, tables: Sequence[Path], is_parsed: bool) -> list[AddColumns]:
    """What adds the columns that only rules look at."""
    module = contract.module
    adders = [missing_values(contract.schema)]
    if contract.key_scope != "none":
        adders.append(key_occurrences(tables, contract.key, contract.key_scope == "file"))
    if hasattr(module, "prepare"):
        adders.append(module.prepare)
    if hasattr(module, "parse") and not is_parsed:
        adders.append(module.parse)
    if hasattr(module, "survey"):
        adders.append(module.survey(tables))
    return adders


def _derived(chunk: pa.Table, adders: Sequence[AddColumns]) -> pa.Table:
    """The chunk with the derived columns; one that it has already is replaced."""
    derived: Columns = {}
    for add in adders:
        derived.update(add(chunk))
    for name, values in derived.items():
        column = pa.array(values) if not isinstance(values, pa.ChunkedArray) else values
        if name in chunk.column_names:
            chunk = chunk.set_column(chunk.schema.get_field_index(name), name, column)
        else:
            chunk = chunk.append_column(name, column)
    return chunk


def _failure(sums: RuleTotals) -> RuleFailure:
    keys: tuple[str, ...] = () if sums.has_unnamed_rows else tuple(sums.keys)
    examples = tuple(f"{key} ({sums.column}={value})" for key, value in sums.values)
    return RuleFailure(sums.rule, sums.num_failing, keys, examples)


def _shown(value: object) -> str:
    if value is None:
        return "nan"  # as Great Expectations, which sees a table of pandas, shows what is missing
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
