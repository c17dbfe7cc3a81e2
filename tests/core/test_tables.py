"""Tables of an artifact: what is read, what is refused by name, what can be written."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.contracts import require_contract
from components.core.counts import quarantine_row, row_json, write_quarantine
from components.core.errors import ContractViolation, InputError
from components.core.tables import count_rows, read_batches, read_rows, table_paths, write_rows
from data_contracts.engine.check import check_table
from data_contracts.records import SCHEMA
from tests.rows import record_row

TEXTS = pa.schema([pa.field("text", pa.string()), pa.field("more", pa.list_(pa.string()))])


@pytest.mark.parametrize("text", ["x\ud800y", "\udfff", "\ud83d\ude00 as two halves"])
def test_lone_surrogates_are_written_as_the_mark_for_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.parquet"
    rows: list[dict[str, Any]] = [{"text": "good", "more": None}, {"text": text, "more": [text]}]
    assert write_rows(path, rows, TEXTS) == 2
    good, mended = read_rows(path)
    assert good == {"text": "good", "more": None}
    assert mended["more"] == [mended["text"]]
    assert "\N{REPLACEMENT CHARACTER}" in mended["text"] or "😀" in mended["text"]


def test_a_dropped_row_with_any_value_is_kept_as_json_that_others_read(tmp_path: Path) -> None:
    row = record_row(3, phrase="a\ud800", score=math.nan, box_norm=[math.inf, 0.0, 1.0, 1.0])
    write_quarantine(
        tmp_path / "q.parquet", [quarantine_row("select", row, "missing_value", "x\udc80")]
    )
    (kept,) = read_rows(tmp_path / "q.parquet")
    back = json.loads(kept["row"], parse_constant=pytest.fail)
    assert back == {**row, "score": None, "box_norm": [None, 0.0, 1.0, 1.0]}
    assert json.loads(row_json({"a": {1: (math.nan, {"b": b"x"})}})) == {
        "a": {"1": [None, {"b": "b'x'"}]}
    }


def test_folders_with_a_table_s_name_and_unfinished_work_are_no_tables(tmp_path: Path) -> None:
    for name in ("a.parquet/part.parquet", "_work/b.parquet", ".c.parquet", "d.parquet"):
        write_rows(tmp_path / name, [], TEXTS)
    names = [str(path.relative_to(tmp_path)) for path in table_paths(tmp_path)]
    assert names == ["a.parquet/part.parquet", "d.parquet"]
    assert count_rows(tmp_path) == 0


def test_a_step_reads_the_very_tables_that_its_contract_checks(tmp_path: Path) -> None:
    bad = record_row(2, score=9.0)
    for name in ("_extra/a.parquet", "00000/_extra/b.parquet", "_c.parquet", ".d/e.parquet"):
        write_rows(tmp_path / name, [bad], SCHEMA)
    write_rows(tmp_path / "00000" / "part.parquet", [record_row(1)], SCHEMA)
    require_contract("records", tmp_path)
    assert [row["region_id"] for row in read_rows(tmp_path)] == ["1-00"]
    assert check_table("records", tmp_path).tables == tuple(table_paths(tmp_path))
    write_rows(tmp_path / "extra" / "part.parquet", [bad], SCHEMA)
    assert check_table("records", tmp_path).tables == tuple(table_paths(tmp_path))
    with pytest.raises(ContractViolation, match="score_in_range"):
        require_contract("records", tmp_path)


def test_a_damaged_table_and_a_missing_column_are_named_while_rows_are_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "00000" / "part.parquet"
    write_rows(path, [{"text": "good", "more": []}], TEXTS)
    with pytest.raises(InputError, match=r"part\.parquet .*column 'url' is missing"):
        list(read_rows(tmp_path, ["text", "url"]))
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes(20) + content[40:])
    with pytest.raises(InputError, match=r"part\.parquet is damaged"):
        list(read_batches(tmp_path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"part\.parquet is empty"):
        count_rows(tmp_path)


def other(name: str, column: pa.Array) -> pa.Table:
    table = pa.Table.from_pylist([record_row(1)], schema=SCHEMA)
    return table.set_column(SCHEMA.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (other("score", pa.array(["0.9"])), "column score is string, not double"),
        (other("url", pa.array([b"x"])), "column url is binary, not string"),
        (other("box_norm", pa.array([[1]])), "column box_norm is list"),
        (other("phrase", pa.array(["a"])).drop_columns(["split", "url"]),
         "column url is missing; column split is missing"),
        (other("phrase", pa.array(["a"])).append_column("url", pa.array(["x"])),
         "column url comes more than once"),
    ],
)  # fmt: skip
def test_a_table_with_other_columns_is_refused_by_file_and_column(
    tmp_path: Path, table: pa.Table, message: str
) -> None:
    pq.write_table(table, tmp_path / "part-7.parquet")
    with pytest.raises(InputError, match=rf"input records: .*part-7\.parquet .*{message}"):
        require_contract("records", tmp_path)


def test_text_that_is_not_utf8_in_an_input_is_named(tmp_path: Path) -> None:
    raw = pa.array([b"\xff"])
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    pq.write_table(other("image_caption", text), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet .*column 'image_caption'"):
        require_contract("records", tmp_path)
