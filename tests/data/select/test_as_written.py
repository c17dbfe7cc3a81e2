"""GRIT as tools write it: other types are read alike, a bad row costs itself and not the file."""

import json
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.tables import read_rows
from components.data.select.step import select
from data_contracts.grit import SCHEMA
from tests.data.select.test_select import APPLE, DOG, TABLE, record

ROWS = [record(number, clip_similarity_vitl14=0.25) for number in range(3)]
PLAIN = pa.Table.from_pylist(ROWS, schema=SCHEMA)


def of_bytes(values):
    """A text column of these bytes, whatever they are."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)


def run_on(folder, *tables):
    """What `select` keeps and drops of files with these tables."""
    grit = folder / "grit"
    grit.mkdir(parents=True)
    for number, table in enumerate(tables):
        pq.write_table(table, grit / f"{number}.parquet")
    outputs = {"records": folder / "records", "quarantine": folder / "q.parquet"}
    metrics = run_step(select, {"grit": grit}, outputs, {}).metrics
    kept, dropped = (list(read_rows(path)) for path in outputs.values())
    assert metrics["regions_in"] == len(kept) + len(dropped)
    for row in dropped:
        json.loads(row["row"], parse_constant=pytest.fail)
    return kept, dropped


def with_column(name, column):
    return PLAIN.set_column(PLAIN.schema.get_field_index(name), name, column)


def view_lists(rows):
    """A column of list views, which no cast makes."""
    flat = pa.array([region for row in rows for region in row])
    sizes = pa.array([len(row) for row in rows], pa.int32())
    offsets = pa.array(np.cumsum([0, *(len(row) for row in rows[:-1])]), pa.int32())
    return pa.ListViewArray.from_arrays(offsets, sizes, flat)


REGIONS = [row["ref_exps"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *(("id", pa.array([0, 1, 2], kind)) for kind in (pa.uint8(), pa.int16(), pa.uint64())),
        *(("id", pa.array([0, 1, 2], kind)) for kind in (pa.float32(), pa.float64())),
        ("id", pa.array(["0", "1", "2"])),
        ("id", pa.array([" 0", "1 ", "2"]).dictionary_encode()),
        ("id", pa.array([b"0", b"1", b"2"], pa.large_binary())),
        ("id", pa.array([Decimal(0), Decimal(1), Decimal(2)], pa.decimal128(20, 0))),
        *(("width", pa.array([640] * 3, kind)) for kind in (pa.int16(), pa.float32())),
        ("width", pa.array([640] * 3, pa.int32()).dictionary_encode()),
        ("width", pa.array(["640", "640.0", " 6.4e2 "])),
        ("height", pa.array([Decimal(480)] * 3, pa.decimal256(40, 2))),
        ("url", PLAIN["url"].cast(pa.large_string())),
        ("url", PLAIN["url"].cast(pa.string_view())),
        ("url", PLAIN["url"].cast(pa.binary())),
        ("caption", PLAIN["caption"].combine_chunks().dictionary_encode()),
        ("caption", PLAIN["caption"].cast(pa.dictionary(pa.int8(), pa.large_string()))),
        ("clip_similarity_vitl14", pa.array([0.25] * 3, pa.float16())),
        ("clip_similarity_vitl14", pa.array([".25", "0.250", "25e-2"])),
        ("noun_chunks", pa.nulls(3)),
        ("ref_exps", PLAIN["ref_exps"].cast(pa.large_list(pa.large_list(pa.float64())))),
        ("ref_exps", PLAIN["ref_exps"].cast(pa.list_(pa.list_(pa.float64(), 7)))),
        ("ref_exps", PLAIN["ref_exps"].cast(pa.list_(pa.list_(pa.float64()), 2))),
        ("ref_exps", PLAIN["ref_exps"].cast(pa.list_(pa.list_(pa.string())))),
        ("ref_exps", PLAIN["ref_exps"].cast(pa.list_(pa.list_(pa.decimal128(20, 10))))),
        ("ref_exps", view_lists(REGIONS)),
    ],
)  # fmt: skip
def test_a_column_of_another_type_is_read_alike(tmp_path, name, column):
    assert run_on(tmp_path / "a", with_column(name, column)) == run_on(tmp_path / "b", PLAIN)


@pytest.mark.parametrize(
    "table",
    [
        PLAIN.drop_columns(["key", "clip_similarity_vitb32", "noun_chunks"]),
        PLAIN.select(PLAIN.column_names[::-1]),
        PLAIN.append_column("extra", pa.array([{"a": [1]}] * 3)),
        PLAIN.append_column("id.more", pa.array([7] * 3)),
        PLAIN.append_column("__index_level_0__", pa.array([7] * 3)),
        pa.Table.from_pandas(PLAIN.to_pandas().set_index("key")),
        pa.Table.from_pandas(pd.DataFrame(ROWS)),
    ],
)
def test_other_columns_and_another_order_change_nothing(tmp_path, table):
    assert run_on(tmp_path / "a", table) == run_on(tmp_path / "b", PLAIN)


def test_files_may_differ_in_their_types(tmp_path):
    other = pa.Table.from_pylist([record(7)], schema=SCHEMA)
    texts = other.set_column(3, "id", pa.array(["7"])).set_column(7, "height", pa.array([480.0]))
    again = texts.set_column(4, "url", pa.array(["https://images.example/again.jpg"]))
    kept, dropped = run_on(tmp_path, PLAIN, texts, again)
    assert [row["record_id"] for row in kept] == ["0", "0", "1", "1", "2", "2", "7", "7"]
    assert [(row["region_id"], row["reason"]) for row in dropped] == [
        ("7@4-00", "duplicate_id"),
        ("7@4-01", "duplicate_id"),
    ]


def test_ids_of_any_text_name_their_records(tmp_path):
    ids = ["coyo_12", "a/b c", "ü" * 500]
    kept, _ = run_on(tmp_path, with_column("id", pa.array(ids)))
    names = list(dict.fromkeys(row["record_id"] for row in kept))
    assert len(names) == 3
    assert names[0] == "coyo_12"
    for name in names:
        assert name.isascii()
        assert name.isidentifier()


def replaced(name, value):
    """The three good records and, between them, one with another value of a column."""
    column = PLAIN[name].to_pylist()
    return with_column(name, pa.array([column[0], value, column[2]], PLAIN[name].type))


@pytest.mark.parametrize(
    ("table", "reason", "detail"),
    [
        (replaced("id", None), "missing_value", "no id"),
        (replaced("caption", None), "missing_value", "no caption"),
        (with_column("id", pa.array([0.0, math.nan, 2.0])), "missing_value", "no id"),
        (with_column("id", pa.array([0.0, 1.5, 2.0])), "malformed_value", "id is 1.5"),
        (with_column("id", pa.array(["0", "", "2"])), "missing_value", "no id"),
        (
            with_column("caption", of_bytes([ROWS[0]["caption"].encode(), b"a \xff dog", None])),
            "text_not_utf8",
            "caption is not UTF-8",
        ),
        (
            with_column("url", of_bytes([ROWS[0]["url"].encode(), b"https://a.example/\xed\xa0\x80",
                                         ROWS[2]["url"].encode()])),
            "text_not_utf8",
            "url is not UTF-8",
        ),
        (replaced("width", 2**31), "impossible_size", "2.14748e+09"),
        (with_column("width", pa.array([640, 2**64 - 1, 640], pa.uint64())), "malformed_value", ""),
        (with_column("width", pa.array([640, 640.5, 640])), "malformed_value", "width is 640.5"),
        (with_column("width", pa.array([640, math.inf, 640])), "malformed_value", "width is inf"),
        (with_column("width", pa.array([640, math.nan, 640])), "missing_value", "no width"),
        (with_column("width", pa.array(["640", "wide", "640"])), "malformed_value", "'wide'"),
        (with_column("width", pa.array(["640", "6" * 400, "640"])), "malformed_value", "inf"),
        (with_column("width", pa.array(["640", "6" * 9000, "640"])), "malformed_value", "666"),
        (replaced("ref_exps", [APPLE[:6], DOG[:6]]), "malformed_region", "6 numbers"),
        (replaced("ref_exps", [[*APPLE, 1.0], [*DOG, 1.0]]), "malformed_region", "8 numbers"),
        (replaced("ref_exps", [[None] * 7, None]), "wrong_offsets", "nan"),
        (replaced("ref_exps", [[*APPLE[:2], None, *APPLE[3:]]]), "not_finite", "nan"),
    ],
)  # fmt: skip
def test_a_bad_row_goes_to_the_quarantine_and_the_others_stay(tmp_path, table, reason, detail):
    kept, dropped = run_on(tmp_path, table)
    assert {row["record_id"] for row in kept} <= {"0", "2"}
    assert {row["record_id"] for row in kept} >= {"0"}
    assert dropped[0]["reason"] == reason
    assert detail in dropped[0]["detail"]


def test_text_that_is_not_utf8_in_a_dictionary_or_a_mask_costs_its_own_rows(tmp_path):
    captions = of_bytes([ROWS[0]["caption"].encode(), b"\xff"])
    shared = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), captions)
    kept, dropped = run_on(tmp_path / "a", with_column("caption", shared))
    assert {row["record_id"] for row in kept} == {"0", "2"}
    with_nulls = pa.ListArray.from_arrays(
        pa.array([0, 0, 2, 2]), of_bytes([b"\xff", b"\xfe"]), mask=pa.array([True, False, True])
    )
    table = PLAIN.append_column("masks", with_nulls)
    kept, dropped = run_on(tmp_path / "b", table)
    assert {row["record_id"] for row in kept} == {"0", "2"}
    assert {row["reason"] for row in dropped} == {"text_not_utf8"}


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32()])
def test_a_null_among_lists_of_fixed_size_and_odd_categories_cost_their_own_rows(tmp_path, kind):
    regions = [REGIONS[0], None, [None, REGIONS[2][0]]]
    fixed = pa.array(regions, pa.list_(pa.list_(pa.float64(), 7)))
    kept, dropped = run_on(tmp_path / "a", with_column("ref_exps", fixed))
    assert [row["region_id"] for row in kept] == ["0-00", "0-01", "2-01"]
    assert [(row["region_id"], row["reason"]) for row in dropped] == [("2-00", "malformed_region")]
    captions = of_bytes([ROWS[0]["caption"].encode(), b"\xff"])
    shared = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], kind), captions)
    kept, dropped = run_on(tmp_path / "b", with_column("caption", shared))
    assert {row["reason"] for row in dropped} == {"text_not_utf8"}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("ref_exps", pa.array(["[[1]]"] * 3)),
        ("ref_exps", pa.array([[1.0]] * 3)),
        ("ref_exps", pa.array([[{"start": 1}]] * 3)),
        ("caption", pa.array([1, 2, 3])),
        ("width", pa.array([True] * 3)),
        ("url", pa.array([["https://a.example"]] * 3)),
        ("id", pa.array([1, 2, 3], pa.timestamp("s"))),
        ("height", pa.array([{"a": 1}] * 3)),
    ],
)
def test_a_column_that_means_something_else_is_refused_by_file_and_name(tmp_path, name, column):
    with pytest.raises(InputError, match=rf"0\.parquet.*column '{name}' is "):
        run_on(tmp_path, with_column(name, column))


def test_a_source_of_which_every_row_has_the_same_flaw_is_refused_with_its_reason(tmp_path):
    table = with_column("ref_exps", pa.array([[region[:6]] for region in (APPLE, DOG, TABLE)]))
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "q.parquet"}
    (tmp_path / "grit").mkdir()
    pq.write_table(table, tmp_path / "grit" / "a.parquet")
    settings = select.settings_type()
    with pytest.raises(GateError, match="malformed_region 3"):
        select.function(grit=tmp_path / "grit", **outputs, settings=settings)


def test_a_region_that_shares_a_huge_record_does_not_multiply_it(tmp_path):
    caption = f"a dog {'x' * 30_000}"
    region = [2.0, 5.0, 0.1, 0.1, 0.5, 0.5, 0.9]
    many = [[*region[:2], 0.1, 0.1, 0.5 + number / 1e5, 0.5, 0.9] for number in range(9000)]
    rows = [record(0, caption=caption, ref_exps=many), record(1)]
    kept, dropped = run_on(tmp_path, pa.Table.from_pylist(rows, schema=SCHEMA))
    assert (len(kept), dropped) == (9002, [])
