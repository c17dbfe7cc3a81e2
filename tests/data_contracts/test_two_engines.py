"""A rule means the same to Arrow, which checks around steps, and to Great Expectations."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.engine.check import RuleTotals, check_table, count_chunk
from data_contracts.engine.data_docs import validate_chunk
from data_contracts.engine.rules import Rule, between, holds, is_in, matches, present
from data_contracts.engine.tables import FILE_COLUMN
from tests.data_contracts.broken import BROKEN

Row = dict[str, Any]
RULES: dict[str, Rule] = {
    "number_present": present("number"),
    "number_between": between("number", -1, 1),
    "number_above": between("number", above=0, highest=2, mostly=0.5),
    "whole_between": between("whole", 1, 3),
    "whole_present": present("whole", mostly=0.9),
    "text_present": present("text"),
    "text_is_hex": matches("text", r"^[0-9a-f]{2}$"),
    "text_is_a_word": matches("text", r"^\w+$"),
    "text_has_no_space": matches("text", r"^\S*$"),
    "text_has_a_digit": matches("text", r"\d"),
    "text_known": is_in("text", "", "ab", "é", mostly=0.5),
    "flag": holds("flag"),
    "no_flag": holds("flag", is_true=False),
}
TEXTS = st.text(st.sampled_from("ab09f \n\t\x1f\u00a0é٣_-"), max_size=3)
NUMBERS = st.sampled_from([-1.0, 0.0, 1.0, 1.0000001, 2.0, math.nan, math.inf, -math.inf])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.one_of(st.none(), st.sampled_from("abcdefgh")),
            "number": st.one_of(st.none(), NUMBERS),
            "whole": st.one_of(st.none(), st.sampled_from([0, 1, 3, 4, 12345678])),
            "text": st.one_of(st.none(), TEXTS),
            "flag": st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("number", pa.float64()),
        ("whole", pa.int32()),
        ("text", pa.string()),
        ("flag", pa.bool_()),
        (FILE_COLUMN, pa.int32()),
    ]
)


def totals_by(evaluate: Callable[..., None], chunk: pa.Table) -> dict[str, RuleTotals]:
    totals = {
        name: RuleTotals(name, rule.column, rule.mostly, max_keys=3) for name, rule in RULES.items()
    }
    for part in (chunk, chunk):
        evaluate(RULES, part, "key", totals)
    return totals


@given(rows=ROWS)
@settings(max_examples=25, deadline=None)
def test_counts_keys_and_examples_are_the_same_whatever_a_table_holds(rows: list[Row]) -> None:
    chunk = pa.Table.from_pylist([row | {FILE_COLUMN: 0} for row in rows], schema=SCHEMA)
    assert totals_by(count_chunk, chunk) == totals_by(validate_chunk, chunk)


@pytest.mark.parametrize("artifact", BROKEN)
def test_a_table_that_breaks_every_rule_of_a_contract_gets_the_same_result(
    artifact: str,
    good_row: Callable[[str, int], Row],
    write_table: Callable[[str, Path, list[Row]], Path],
    tmp_path: Path,
) -> None:
    rows = [good_row(artifact, n) | change for n, (_, change) in enumerate(BROKEN[artifact])]
    path = write_table(artifact, tmp_path / "part.parquet", [*rows, *rows[:2]])
    fast, of_record = (
        check_table(artifact, path, evaluate=by) for by in (count_chunk, validate_chunk)
    )
    assert fast.failures
    assert fast == of_record
