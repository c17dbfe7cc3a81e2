"""`select` drops each bad region for the right reason and loses none."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.tables import read_rows, write_rows
from components.data.select import regions as source
from components.data.select.step import select
from data_contracts.grit import PARTS_SCHEMA, SAMPLE_SCHEMA, SCHEMA
from pixclip.masks import box_mask, encode_mask

CAPTION = "A café table with a red apple and a dog."
APPLE = [18.0, 29.0, 0.1, 0.1, 0.4, 0.5, 0.9]  # "a red apple": after a letter of two bytes
TABLE = [7.0, 12.0, 0.1, 0.1, 0.3, 0.3, 0.8]
DOG = [36.0, 39.0, 0.5, 0.5, 0.9, 0.9, 0.8]


def mask_of(side_px):
    """Counts of a square in an image of the records' size."""
    return encode_mask(box_mask((0, 0, side_px, side_px), 480, 640)).counts


FULL = mask_of(480)


def record(number=0, **changes):
    return {
        "key": f"{number:09d}",
        "clip_similarity_vitb32": 0.3,
        "clip_similarity_vitl14": 0.3,
        "id": number,
        "url": f"https://images.example/{number}.jpg",
        "caption": CAPTION,
        "width": 640,
        "height": 480,
        "noun_chunks": [],
        "ref_exps": [APPLE, DOG],
        **changes,
    }


def run_select(folder: Path, rows, schema=SAMPLE_SCHEMA, **changes):
    write_rows(folder / "grit" / "a.parquet", rows, schema)
    outputs = {"records": folder / "records", "quarantine": folder / "select.parquet"}
    settings = select.settings_type(**changes)
    metrics = select.function(grit=folder / "grit", **outputs, settings=settings)
    dropped = list(read_rows(outputs["quarantine"]))
    assert metrics["regions_in"] == metrics["regions_out"] + len(dropped)
    return metrics, list(read_rows(outputs["records"])), dropped


def with_region(**changes):
    """A record whose first region has other values, by name."""
    names = ("start", "end", "x1", "y1", "x2", "y2", "score")
    region = [changes.get(name, value) for name, value in zip(names, APPLE, strict=True)]
    return record(ref_exps=[region, DOG])


def test_the_step_meets_its_contracts(tmp_path):
    write_rows(tmp_path / "grit" / "a.parquet", [record(1), with_region(score=0.1)], SAMPLE_SCHEMA)
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "select.parquet"}
    receipt = run_step(select, {"grit": tmp_path / "grit"}, outputs, {})
    assert receipt.metrics["regions_quarantined"] == 1


def test_a_good_record_becomes_one_row_a_region(tmp_path):
    metrics, kept, dropped = run_select(tmp_path, [record(7)])
    assert [row["region_id"] for row in kept] == ["7-00", "7-01"]
    assert [row["phrase"] for row in kept] == ["a red apple", "dog"]
    assert kept[0]["box_norm"] == [0.1, 0.1, 0.4, 0.5]
    assert kept[0]["mask_counts"] is None
    assert kept[0]["split"] == ""
    assert (metrics["regions_in"], metrics["regions_out"], dropped) == (2, 2, [])


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (with_region(score=0.5), "low_score", "score 0.5, lowest 0.65"),
        (with_region(x2=1.2), "box_outside_image", "1.2000"),
        (with_region(y1=-0.2), "box_outside_image", "-0.2000"),
        (with_region(x1=0.6, x2=0.5), "empty_box", "0.6000"),
        (with_region(x1=0.1, x2=0.105), "tiny_box", "side of 3.2 pixels"),
        (with_region(x1=0, y1=0, x2=1, y2=0.99), "large_box", "0.99000"),
        (with_region(end=500), "wrong_offsets", "of a caption of 40 characters"),
        (with_region(end=41), "wrong_offsets", "18 to 41"),  # inside only if counted in bytes
        (with_region(start=29), "wrong_offsets", "29 to 29"),
        (with_region(start=-1), "wrong_offsets", "-1"),
        (with_region(start=2.5), "wrong_offsets", "2.5"),
        (with_region(start=math.nan), "wrong_offsets", "nan"),
        (with_region(start=6, end=7), "wrong_offsets", "6 to 7"),  # a blank
        (with_region(start=39, end=40), "phrase_names_nothing", "'.' has no letter"),
        (with_region(score=-0.1), "impossible_score", "score -0.1"),
        (with_region(score=1.5), "impossible_score", "score 1.5, possible are 0 to 1"),
        (with_region(x1=-0.0009, x2=0), "empty_box", "-0.0009"),
        (with_region(x1=math.nan), "not_finite", "nan"),
        (with_region(score=math.inf), "not_finite", ""),
        (record(ref_exps=[APPLE[:6], DOG]), "malformed_region", "6 numbers"),
        (record(ref_exps=[DOG, DOG]), "duplicate_region", ""),
        (record(ref_exps=[None, DOG]), "malformed_region", "0 numbers"),
    ],
)
def test_a_bad_region_is_dropped_with_its_reason_and_the_others_stay(tmp_path, bad, reason, detail):
    metrics, kept, dropped = run_select(tmp_path, [bad])
    assert [(row["reason"], detail in row["detail"]) for row in dropped] == [(reason, True)]
    assert [row["phrase"] for row in kept] == ["dog"]
    assert metrics[f"quarantined.{reason}"] == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record(clip_similarity_vitl14=0.1), "low_clip_similarity"),
        (record(height=150), "small_image"),
        (record(width=0), "small_image"),
        (record(width=None), "missing_value"),
        (record(url=None), "missing_value"),
        (record(url=" "), "missing_value"),
        (record(id=None), "missing_value"),
        (record(caption=None), "missing_value"),
        (record(masks=["abc"]), "masks_not_parallel"),
        (record(masks=["abc", "de"]), "damaged_mask"),
        (record(width=2**31), "impossible_size"),
        (record(width=2**31, masks=[FULL, FULL]), "impossible_size"),
        (record(height=2**40), "impossible_size"),
        (record(height=2**62), "malformed_value"),
        (record(height=-480), "small_image"),
        (record(url="ftp://images.example/0.jpg"), "unknown_address"),
        (record(url="C:\\images\\0.jpg"), "unknown_address"),
        (record(split="test"), "unknown_split"),
        (record(clip_similarity_vitl14=31.5), "impossible_similarity"),
        (record(clip_similarity_vitl14=-math.inf), "impossible_similarity"),
        (record(caption="a red apple " * 5000), "text_too_long"),
        (record(url="https://images.example/" + "x" * 40_000), "text_too_long"),
    ],
)
def test_a_bad_record_loses_all_its_regions(tmp_path, bad, reason):
    _, kept, dropped = run_select(tmp_path, [bad, record(1)])
    assert [row["reason"] for row in dropped] == [reason, reason]
    assert {row["record_id"] for row in kept} == {"1"}


def test_limits_on_area_and_phrase_follow_the_settings(tmp_path):
    small = {"min_box_share": 0.05, "min_phrase_chars": 4, "max_phrase_chars": 10}
    with pytest.raises(GateError, match="long_phrase 1, short_phrase 1, small_box 1"):
        run_select(tmp_path, [record(ref_exps=[APPLE, DOG, TABLE])], **small)


def test_of_equal_regions_the_first_stays(tmp_path):
    _, kept, dropped = run_select(tmp_path, [record(ref_exps=[DOG, APPLE, DOG, TABLE])])
    assert [row["region_id"] for row in kept] == ["0-00", "0-01", "0-03"]
    assert [row["region_id"] for row in dropped] == ["0-02"]


def test_an_unknown_similarity_passes(tmp_path):
    _, kept, _ = run_select(tmp_path, [record(clip_similarity_vitl14=None)])
    assert [row["clip_similarity"] for row in kept] == [None, None]


def test_a_record_without_regions_counts_as_nothing(tmp_path):
    rows = [record(0), record(1, ref_exps=[]), record(2, ref_exps=None)]
    metrics, _, dropped = run_select(tmp_path, rows)
    assert (metrics["records_in"], metrics["records_without_regions"]) == (3, 2)
    assert (metrics["regions_in"], dropped) == (2, [])


def test_a_box_that_sticks_out_by_rounding_is_clipped(tmp_path):
    _, kept, _ = run_select(tmp_path, [with_region(x1=-0.0005, x2=0.5)])
    assert kept[0]["box_norm"] == [0.0, 0.1, 0.5, 0.5]


def test_the_second_record_of_an_id_goes_and_is_named_apart(tmp_path):
    rows = [record(5), record(5, url="https://images.example/other.jpg", width=9), record(6)]
    _, kept, dropped = run_select(tmp_path, rows)
    assert [row["region_id"] for row in dropped] == ["5@1-00", "5@1-01"]
    assert {row["reason"] for row in dropped} == {"duplicate_id"}
    assert [row["record_id"] for row in kept] == ["5", "5", "6", "6"]


def test_the_first_record_of_an_address_that_has_a_good_region_stays(tmp_path):
    same = "https://images.example/same.jpg"
    useless = record(0, url=same, clip_similarity_vitl14=0.01)
    rows = [useless, record(1, url=same), record(2, url=same)]
    metrics, kept, dropped = run_select(tmp_path, rows)
    assert {row["record_id"] for row in kept} == {"1"}
    assert metrics["quarantined.duplicate_url"] == 2
    assert [row["record_id"] for row in dropped if row["reason"] == "duplicate_url"] == ["2", "2"]


def test_the_quarantine_holds_the_whole_row_as_json(tmp_path):
    broken = [0.0, 6.0, math.nan, 0.1, math.inf, 0.5, 0.9]
    _, _, dropped = run_select(tmp_path, [record(3, ref_exps=[broken, DOG])])
    row = json.loads(dropped[0]["row"], parse_constant=lambda name: pytest.fail(name))
    assert row["box_norm"] == [None, 0.1, None, 0.5]
    assert row["image_caption"] == CAPTION
    assert (dropped[0]["region_id"], dropped[0]["step"]) == ("3-00", "select")


def test_masks_stay_with_their_regions(tmp_path):
    first, third, fourth = (mask_of(side_px) for side_px in (10, 20, 30))
    with_masks = record(0, masks=[first, None])
    _, kept, _ = run_select(tmp_path, [with_masks, record(1), record(2, masks=[third, fourth])])
    assert [row["mask_counts"] for row in kept] == [first, None, None, None, third, fourth]
    assert [row["mask_size"] for row in kept][:2] == [[480, 640], None]


def test_points_stay_with_their_regions_and_what_is_no_point_of_the_image_is_none(tmp_path):
    right = record(0, points=[[0.25, 0.5], None])
    wrong = [record(1, points=[[0.25], [1.5, 0.5]]), record(2, points=[[float("nan"), 0.5], []])]
    _, kept, _ = run_select(tmp_path, [right, *wrong, record(3)], PARTS_SCHEMA)
    assert [row["point_norm"] for row in kept] == [[0.25, 0.5], *[None] * 7]


def test_groups_are_cut_by_source_records(tmp_path):
    metrics, _, _ = run_select(tmp_path, map(record, range(25)), records_per_group=10)
    groups = sorted(path.name for path in (tmp_path / "records").iterdir() if path.is_dir())
    assert groups == ["00000", "00001", "00002"]
    last = read_rows(tmp_path / "records" / "00002")
    assert {row["record_id"] for row in last} == {"20", "21", "22", "23", "24"}
    assert metrics["groups"] == 3


def test_a_source_of_which_nothing_is_left_fails_with_the_reasons(tmp_path):
    with pytest.raises(GateError, match=r"none of 4 regions in 2 records \(small_image 4\)"):
        run_select(tmp_path, [record(0, width=10), record(1, width=10)])


def test_a_source_without_regions_is_told_as_such(tmp_path):
    with pytest.raises(GateError, match=r"none of 0 regions in 1 records\. No record .* a region"):
        run_select(tmp_path, [record(ref_exps=[], masks=[])])


def test_a_file_without_grit_columns_is_named(tmp_path):
    (tmp_path / "grit").mkdir()
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "grit" / "wrong.parquet")
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "q.parquet"}
    with pytest.raises(InputError, match=r"wrong\.parquet.*'ref_exps' is missing"):
        select.function(grit=tmp_path / "grit", **outputs, settings=select.settings_type())


def test_a_size_beyond_all_measure_stops_nothing(tmp_path):
    metrics, _, _ = run_select(tmp_path, [record(1), record(2, width=2**62, height=2**62 + 1)])
    assert metrics["records_in"] == 2


@pytest.mark.parametrize("phrase", ["tv", "ox", "x", "犬", "7", "Ö"])
def test_short_names_are_names(tmp_path, phrase):
    region = [0.0, float(len(phrase)), *APPLE[2:]]
    rows = [record(caption=f"{phrase} on a table", ref_exps=[region])]
    _, kept, _ = run_select(tmp_path / "default", rows)
    assert [row["phrase"] for row in kept] == [phrase]
    _, kept, dropped = run_select(tmp_path / "longer", [*rows, record(1)], min_phrase_chars=3)
    assert [row["reason"] for row in dropped] == ["short_phrase"]


@pytest.mark.parametrize("phrase", ["--", ". .", "…", "\u200b", "\x00", "🐱"])
def test_what_has_no_letter_names_nothing(tmp_path, phrase):
    region = [0.0, float(len(phrase)), *APPLE[2:]]
    rows = [record(caption=f"{phrase} on a table", ref_exps=[region]), record(1)]
    _, _, dropped = run_select(tmp_path, rows)
    assert [row["reason"] for row in dropped] == ["phrase_names_nothing"]


def test_other_number_and_text_types_are_read_alike(tmp_path):
    narrow = pa.schema(
        [
            pa.field("key", pa.large_string()),
            pa.field("clip_similarity_vitb32", pa.float32()),
            pa.field("clip_similarity_vitl14", pa.float32()),
            pa.field("id", pa.int64()),
            pa.field("url", pa.dictionary(pa.int32(), pa.string())),
            pa.field("caption", pa.large_string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("noun_chunks", pa.large_list(pa.list_(pa.float32()))),
            pa.field("ref_exps", pa.large_list(pa.list_(pa.float32()))),
        ]
    )
    _, kept, _ = run_select(tmp_path, [record()], narrow)
    assert [row["phrase"] for row in kept] == ["a red apple", "dog"]


def test_the_layout_of_the_files_does_not_change_the_result(tmp_path, monkeypatch):
    rows = [
        record(number % 17, url=f"https://images.example/{number % 23}") for number in range(60)
    ]
    _, at_once, dropped_at_once = run_select(tmp_path / "a", rows)
    monkeypatch.setattr(source, "BATCH_RECORDS", 7)
    for part in range(3):
        path = tmp_path / "b" / "grit" / f"{part}.parquet"
        write_rows(path, rows[part * 20 : part * 20 + 20], SCHEMA, batch_size=9)
    outputs = {"records": tmp_path / "b" / "records", "quarantine": tmp_path / "b" / "q.parquet"}
    select.function(grit=tmp_path / "b" / "grit", **outputs, settings=select.settings_type())
    assert list(read_rows(outputs["records"])) == at_once
    assert list(read_rows(outputs["quarantine"])) == dropped_at_once


def test_the_same_source_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        run_select(tmp_path / name, map(record, range(30)), records_per_group=8)
    parts = [sorted((tmp_path / name / "records").rglob("*.parquet")) for name in ("a", "b")]
    assert [path.read_bytes() for path in parts[0]] == [path.read_bytes() for path in parts[1]]
