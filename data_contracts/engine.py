"""Check tables against their contracts with Great Expectations.

A contract is a module `data_contracts/<artifact>.py` with

- `KEY`: the column that names a row; `KEY_SCOPE`: "artifact" (the default), "file" or "none",
  within which it is unique;
- `SCHEMA`, and `BUDGET`: the share of rows that may be quarantined;
- `suite()`: the rules, standard column expectations with readable names;
- `prepare(chunk)`: columns derived for those rules, by name;
- `JOINS`: keys that must occur in other artifacts, checked where those are known;
- `survey(tables)`: as `prepare`, after a look at all tables (the splits of the data set);
- `UNREAD`: wide columns without rules.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

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

DEFAULT_BUDGET = 0.01


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


@dataclass(frozen=True)
class Contract:
    """A contract module, without importing Great Expectations."""

    artifact: str
    key: str
    budget: float
    module: ModuleType

    @property
    def schema(self) -> pa.Schema:
        """The columns that every table of the artifact must have."""
        return self.module.SCHEMA

    @property
    def key_scope(self) -> str:
        """Within what the key is unique: "artifact", "file" or "none"."""
        return str(getattr(self.module, "KEY_SCOPE", "artifact"))

    @property
    def joins(self) -> Sequence[Join]:
        """Keys that must occur in other artifacts."""
        return tuple(getattr(self.module, "JOINS", ()))


def load_contract(artifact: str) -> Contract | None:
    """The contract of an artifact, or None if its form promises nothing."""
    if importlib.util.find_spec(f"data_contracts.{artifact}") is None:
        return None
    module = importlib.import_module(f"data_contracts.{artifact}")
    if not hasattr(module, "suite"):
        return None
    return Contract(artifact, module.KEY, getattr(module, "BUDGET", DEFAULT_BUDGET), module)


def contract_digest(artifact: str) -> str:
    """A digest of everything that decides a contract's outcome: a changed one is checked anew."""
    from pixclip import masks

    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(masks.__file__)]
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256(" ".join([artifact, *digests]).encode()).hexdigest()


def check_table(
    artifact: str, path: Path, related: Mapping[str, Path] | None = None
) -> ContractResult:
    """Check every table of an artifact in bounded memory.

    `related` are other artifacts by name: the contract's joins to them are checked too.

    Raises:
        ValueError: the artifact has no contract.
    """
    contract = load_contract(artifact)
    if contract is None:
        raise ValueError(f"artifact {artifact} has no contract")
    tables = list_tables(path)
    faults = _schema_faults(contract, tables, path)
    if faults:
        failure = RuleFailure("schema_as_declared", len(faults), (), tuple(faults))
        return ContractResult(artifact, 0, (failure,), (), tuple(tables))
    num_rows = sum(pq.read_metadata(table).num_rows for table in tables)
    joins = [join for join in contract.joins if join.artifact in (related or {})]
    suite = full_suite(contract, joins)
    totals = _fresh_totals(suite, max_keys=int(contract.budget * num_rows) + 1)
    if num_rows:
        adders = _adders(contract, tables, joins, related or {})
        for chunk in read_chunks(tables, _columns_to_read(contract)):
            validate_chunk(suite, _frame(suite, contract, chunk, adders), contract.key, totals)
    failures = tuple(_failure(sums) for sums in totals.values() if not sums.is_met)
    return ContractResult(artifact, num_rows, failures, tuple(totals.values()), tuple(tables))


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
    faults: dict[str, None] = {}
    for table in tables:
        found = pq.read_schema(table)
        for field in contract.schema:
            if field.name not in found.names:
                faults[f"column {field.name} is missing in {table.name}"] = None
            elif not _fits(found.field(field.name).type, field.type):
                is_type = found.field(field.name).type
                faults[f"column {field.name} is {is_type}, not {field.type}"] = None
    return list(faults)


def _fits(found: pa.DataType, declared: pa.DataType) -> bool:
    # The name of a list's items ("item", "element") depends on who wrote the file.
    if pa.types.is_list(declared) and pa.types.is_list(found):
        return _fits(found.value_type, declared.value_type)
    return bool(found == declared)


def _fresh_totals(suite: "ExpectationSuite", max_keys: int) -> dict[str, RuleTotals]:
    return {
        rule.meta["rule"]: RuleTotals(
            rule.meta["rule"], rule.column, float(getattr(rule, "mostly", 1.0)), max_keys
        )
        for rule in suite.expectations
    }


def _columns_to_read(contract: Contract) -> list[str]:
    unread = getattr(contract.module, "UNREAD", ())
    return [name for name in contract.schema.names if name not in unread]


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
    return table.to_pandas(date_as_object=False)


def _failure(sums: RuleTotals) -> RuleFailure:
    keys: tuple[str, ...] = () if sums.has_unnamed_rows else tuple(sums.keys)
    examples = tuple(f"{key} ({sums.column}={value})" for key, value in sums.values)
    return RuleFailure(sums.rule, sums.num_failing, keys, examples)
