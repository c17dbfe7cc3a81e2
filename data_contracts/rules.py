"""Rules with readable names, and those that every contract has: keys, required values, joins."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts.tables import (
    FILE_COLUMN,
    AddColumns,
    Columns,
    hash_keys,
    hashes_of,
    is_among,
    list_tables,
    read_chunks,
)

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

NUM_MISSING, KEY_OCCURRENCES = "num_missing_values", "occurrences_of_key"


@dataclass(frozen=True)
class Join:
    """Every value of `column` must occur in the column `to` of another artifact."""

    rule: str
    column: str
    artifact: str
    to: str
    where: tuple[str, str] | None = None  # only the other artifact's rows with this value


def named_suite(name: str, rules: Mapping[str, Any]) -> "ExpectationSuite":
    """A suite of expectations by rule name; the name is what messages and the quarantine show."""
    import great_expectations as gx

    for rule, expectation in rules.items():
        expectation.meta = {"rule": rule}
    return gx.ExpectationSuite(name=name, expectations=list(rules.values()))


def key_rules(key: str, is_unique: bool) -> dict[str, Any]:
    """The rules on a contract's key and on required values."""
    from great_expectations import expectations as gxe

    rules = {
        f"{key}_present": gxe.ExpectColumnValuesToNotBeNull(column=key),
        "required_values_present": gxe.ExpectColumnValuesToBeBetween(
            column=NUM_MISSING, max_value=0
        ),
    }
    if is_unique:
        rules[f"{key}_unique"] = gxe.ExpectColumnValuesToBeBetween(
            column=KEY_OCCURRENCES, max_value=1
        )
    return rules


def join_rule(join: Join) -> Any:
    """The expectation of a join, on the column that `join_column` adds."""
    from great_expectations import expectations as gxe

    return gxe.ExpectColumnValuesToBeInSet(column=join.rule, value_set=[True])


def missing_values(schema: pa.Schema) -> AddColumns:
    """Adds the number of missing required values of a row."""
    required = [field.name for field in schema if not field.nullable]

    def add(chunk: pa.Table) -> Columns:
        missing = np.zeros(len(chunk), dtype=np.int32)
        for name in required:
            if name in chunk.column_names and chunk[name].null_count:
                missing += chunk[name].is_null().to_numpy().astype(np.int32)
        return {NUM_MISSING: missing}

    return add


def key_occurrences(tables: Sequence[Path], key: str, is_unique_per_file: bool) -> AddColumns:
    """Adds how often a row's key occurs in all tables (or in its own file)."""
    found = [hash_keys(chunk, key) for chunk in read_chunks(tables, [key])]
    hashes = np.sort(np.concatenate([np.empty(0, dtype=np.uint64), *found]))
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    counts: Counter[tuple[int, object]] = Counter()

    def suspicious(chunk: pa.Table) -> list[tuple[int, tuple[int, object]]]:
        places = np.flatnonzero(is_among(hash_keys(chunk, key), suspects))
        names = chunk[key].take(pa.array(places)).to_pylist()
        files = chunk[FILE_COLUMN].to_numpy()[places] if is_unique_per_file else [0] * len(names)
        return list(zip(places.tolist(), zip(map(int, files), names, strict=True), strict=True))

    if len(suspects):  # equal hashes are only a suspicion: count the keys themselves
        for chunk in read_chunks(tables, [key]):
            counts.update(name for _, name in suspicious(chunk))

    def add(chunk: pa.Table) -> Columns:
        occurrences = np.ones(len(chunk), dtype=np.int64)
        if counts:
            for place, name in suspicious(chunk):
                occurrences[place] = counts[name]
        return {KEY_OCCURRENCES: occurrences}

    return add


def join_column(join: Join, other: Path) -> AddColumns:
    """Adds whether a row's value occurs in the other artifact."""
    known = hashes_of(list_tables(other), join.to, join.where)
    return lambda chunk: {join.rule: is_among(hash_keys(chunk, join.column), known)}
