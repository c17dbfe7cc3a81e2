"""Rules about several rows, shards or tables; schemas; empty tables; grit's tolerance."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.engine import tables
from data_contracts.engine.check import check_table
from data_contracts.engine.contract import load_contract
from data_contracts.engine.reading import decoded_batches

Row = dict[str, Any]
GoodRow = Callable[[str, int], Row]
Write = Callable[[str, Path, list[Row]], Path]
GERMAN = (
    "Eine kleine rote Katze sitzt links auf einer grünen Matte vor einer Wand aus Holz und schaut "
    "in die Kamera, während ein Vogel vorbeifliegt."
)


def failing(artifact: str, path: Path, related: dict[str, Path] | None = None) -> dict[str, Any]:
    result = check_table(artifact, path, related)
    return {failure.rule: set(failure.keys) for failure in result.failures}


def test_a_key_twice_in_two_shards_fails_in_both(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    write_table("records", tmp_path / "00000/a.parquet", [good_row("records", n) for n in (1, 2)])
    write_table("records", tmp_path / "00001/a.parquet", [good_row("records", n) for n in (2, 3)])
    assert failing("records", tmp_path) == {"region_id_unique": {"2-00"}}


def test_a_key_twice_is_found_across_chunks(
    good_row: GoodRow, write_table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    numbers = [0, 1, 2, 3, 4, 0]
    write_table("records", tmp_path / "a.parquet", [good_row("records", n) for n in numbers])
    result = check_table("records", tmp_path)
    assert [(f.rule, f.num_rows, f.keys) for f in result.failures] == [
        ("region_id_unique", 2, ("0-00",))
    ]
    assert {sums.num_rows for sums in result.totals} == {6}


def test_a_url_may_come_in_two_groups_but_not_twice_in_one(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    one, two = good_row("images", 1), good_row("images", 2)
    write_table("images", tmp_path / "00000/manifest.parquet", [one, two])
    write_table("images", tmp_path / "00001/manifest.parquet", [one])
    assert failing("images", tmp_path) == {}
    write_table("images", tmp_path / "00001/manifest.parquet", [one, one])
    assert failing("images", tmp_path) == {"url_unique": {one["url"]}}


def test_equal_hashes_of_different_keys_are_no_duplicates(
    good_row: GoodRow, write_table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from data_contracts.engine import contract as keys

    monkeypatch.setattr(keys, "hash_keys", lambda chunk, _: np.zeros(len(chunk), dtype=np.uint64))
    write_table("records", tmp_path / "a.parquet", [good_row("records", n) for n in range(4)])
    assert failing("records", tmp_path) == {}


def test_a_row_without_a_key_cannot_be_named(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("records", 0), good_row("records", 1) | {"region_id": None}]
    write_table("records", tmp_path / "a.parquet", rows)
    found = failing("records", tmp_path)
    assert found["region_id_present"] == set()


def test_joins_are_checked_where_the_other_artifact_is_known(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    regions = [good_row("regions", n) for n in range(4)]
    images = [good_row("images", n) for n in range(4)]
    images[2] |= {"status": "failed", "reason": "http_404"}
    path = write_table("regions", tmp_path / "regions.parquet", regions)
    related = {
        "candidates": write_table(
            "candidates", tmp_path / "c.parquet", [good_row("candidates", n) for n in (0, 1, 2)]
        ),
        "images": write_table("images", tmp_path / "manifest.parquet", images),
        "longgrit": tmp_path / "not one of its joins",
    }
    assert failing("regions", path) == {}
    assert failing("regions", path, related) == {
        "region_among_candidates": {"3-00"},
        "image_in_manifest": {"2-00"},
    }


def test_one_caption_in_another_language_is_tolerated_many_are_not(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("captions", n) for n in range(40)]
    rows[7]["long_caption"] = GERMAN
    assert failing("captions", write_table("captions", tmp_path / "a.parquet", rows)) == {}
    for number in range(10):
        rows[number]["long_caption"] = GERMAN
    path = write_table("captions", tmp_path / "b.parquet", rows)
    assert failing("captions", path) == {
        "long_caption_in_english": {f"{number}-00" for number in range(10)}
    }


def test_an_image_in_two_splits_fails_with_all_its_regions(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("longgrit", n) for n in range(9)]
    for name in ("image_id", "key", "image_phash"):
        rows[1][name] = rows[0][name]  # row 0 is in train, row 1 in val
    path = write_table("longgrit", tmp_path / "manifest.parquet", rows)
    found = failing("longgrit", path)
    assert found["image_in_one_split"] == {"0-00", "1-00"}
    assert found["image_in_one_sample"] == {"0-00", "1-00"}


def test_images_that_look_alike_must_share_a_split(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("longgrit", n) for n in range(9)]
    rows[0]["image_phash"], rows[1]["image_phash"] = "00000000000000ff", "000000000000f0ff"
    rows[2]["image_phash"], rows[5]["image_phash"] = "ff00000000000000", "ff00000000000001"
    path = write_table("longgrit", tmp_path / "manifest.parquet", rows)  # 2 and 5: benchmark
    assert failing("longgrit", path) == {"no_near_duplicate_in_other_split": {"0-00", "1-00"}}


@pytest.mark.parametrize("artifact", ["records", "regions", "captions"])
def test_masks_that_a_receipt_vouches_for_are_not_even_read(
    artifact: str,
    good_row: GoodRow,
    write_table: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_table(artifact, tmp_path / "a.parquet", [good_row(artifact, n) for n in range(5)])
    read: list[set[str]] = []

    def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        read.append(set(columns))
        return decoded_batches(path, columns)

    monkeypatch.setattr(f"data_contracts.{artifact}.batches", batches, raising=False)
    whole, vouched = (
        check_table(artifact, tmp_path, has_receipt=has_receipt) for has_receipt in (False, True)
    )
    assert read[0] - read[1] == {"mask_counts"}
    assert whole == vouched


def test_an_empty_table_meets_its_contract(write_table: Write, tmp_path: Path) -> None:
    write_table("quarantine", tmp_path / "a.parquet", [])
    assert check_table("quarantine", tmp_path / "a.parquet").failures == ()


def test_an_empty_shard_among_others_is_no_failure(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    write_table("records", tmp_path / "a.parquet", [])
    write_table("records", tmp_path / "b.parquet", [good_row("records", 0)])
    assert check_table("records", tmp_path).num_rows == 1
    assert failing("records", tmp_path) == {}


def test_a_folder_without_a_table_fails(tmp_path: Path) -> None:
    assert "schema_as_declared" in failing("records", tmp_path)


def test_hidden_files_and_unfinished_work_are_not_looked_at(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    bad = [good_row("records", 0) | {"score": 9.0}]
    write_table("records", tmp_path / "_work" / "a.parquet", bad)
    write_table("records", tmp_path / ".b.parquet", bad)
    write_table("records", tmp_path / "c.parquet", [good_row("records", 0)])
    assert failing("records", tmp_path) == {}


def test_a_missing_column_and_a_wrong_type_are_named(tmp_path: Path, good_row: GoodRow) -> None:
    table = pa.Table.from_pylist([good_row("images", 0)]).drop_columns(["phash"])
    pq.write_table(table, tmp_path / "manifest.parquet")
    (failure,) = check_table("images", tmp_path).failures
    assert "column phash is missing" in failure.examples
    assert "column width_px is int64, not int32" in failure.examples


def test_grit_tolerates_a_few_bad_records_and_refuses_a_table_of_them(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("grit", n) for n in range(100)]
    rows[3] |= {"url": None, "caption": None}
    rows[4] |= {"ref_exps": [[1.0, 2.0]], "width": -1}
    rows[5] |= {"ref_exps": None}
    path = write_table("grit", tmp_path / "a.parquet", rows)
    assert failing("grit", path) == {}
    bad = [row | {"ref_exps": [[0.1] * 4], "url": None, "height": 0} for row in rows]
    path = write_table("grit", tmp_path / "b.parquet", bad)
    assert set(failing("grit", path)) == {
        "url_present",
        "height_positive",
        "regions_have_seven_numbers",
    }


def test_grit_is_read_with_other_number_and_text_types(good_row: GoodRow, tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("key", pa.large_string()),
            ("url", pa.large_string()),
            ("caption", pa.large_string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("clip_similarity_vitb32", pa.float32()),
            ("clip_similarity_vitl14", pa.float32()),
            ("noun_chunks", pa.large_list(pa.large_list(pa.float32()))),
            ("ref_exps", pa.large_list(pa.large_list(pa.float32()))),
        ]
    )
    pq.write_table(
        pa.Table.from_pylist([good_row("grit", 1)], schema=schema), tmp_path / "a.parquet"
    )
    assert failing("grit", tmp_path) == {}


def test_failing_rows_are_counted_by_table(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    write_table("records", tmp_path / "00000/a.parquet", [good_row("records", 0)])
    write_table(
        "records", tmp_path / "00001/a.parquet", [good_row("records", 1) | {"split": "test"}]
    )
    result = check_table("records", tmp_path)
    (sums,) = [sums for sums in result.totals if not sums.is_met]
    assert {result.tables[place].parent.name: n for place, n in sums.files.items()} == {"00001": 1}


def test_a_table_of_failing_rows_is_counted_but_not_named_without_end(
    good_row: GoodRow, write_table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    monkeypatch.setattr("data_contracts.engine.check.MIN_KEYS", 5)
    rows = [good_row("records", n) | {"score": 9.0} for n in range(30)]
    (failure,) = check_table(
        "records", write_table("records", tmp_path / "a.parquet", rows)
    ).failures
    assert failure.num_rows == 30
    assert len(failure.keys) == 5


def test_a_check_that_finds_something_imports_no_great_expectations(
    good_row: GoodRow, write_table: Write, tmp_path: Path
) -> None:
    rows = [good_row("regions", n) for n in range(5)]
    rows[2]["score"] = 9.0
    path = write_table("regions", tmp_path / "a.parquet", rows)
    code = (
        "import sys, pathlib\n"
        "from data_contracts.engine.check import check_table\n"
        "from data_contracts.engine.contract import load_contract\n"
        "assert load_contract('captions') and load_contract('longgrit') and load_contract('grit')\n"
        f"(failure,) = check_table('regions', pathlib.Path({str(path)!r})).failures\n"
        "assert failure.keys == ('2-00',), failure\n"
        "assert not {'great_expectations', 'scipy', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_artifact_without_rules_has_no_contract() -> None:
    assert load_contract("exports") is None
    assert load_contract("columns") is None
