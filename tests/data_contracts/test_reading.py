"""Parquet of strangers: nothing damaged, false or huge gets further than its name."""

import resource
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.engine import reading
from data_contracts.engine.footers import read_chunks
from data_contracts.engine.reading import (
    TableError,
    decoded_batches,
    num_rows,
    raw_batches,
    read_schema,
)

COLUMNS = {
    "name": [f"region {number}" for number in range(300)],
    "box": [[0.5, float(number)] for number in range(300)],
    "tags": [["a", str(number)] for number in range(300)],
}


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def repeated(value: pa.Array, num_times: int) -> pa.Array:
    """One value many times, in the memory of one."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * num_times, pa.int32()), value)


def read_all(path: Path) -> int:
    return sum(batch.num_rows for batch in decoded_batches(path))


@pytest.mark.parametrize("batch_rows", [1, 7, 8192])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 13}, {"use_dictionary": False}])
def test_rows_arrive_as_they_were_written(
    tmp_path: Path, batch_rows: int, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.parquet", COLUMNS, **options)
    batches = list(decoded_batches(path, ["tags", "name"], batch_rows))
    assert max(batch.num_rows for batch in batches) <= batch_rows
    table = pa.Table.from_batches(batches)
    assert table.to_pydict() == {"tags": COLUMNS["tags"], "name": COLUMNS["name"]}


DELTAS = ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY")


@pytest.mark.parametrize(
    "options",
    [
        *({"use_dictionary": False, "column_encoding": {"name": kind}} for kind in DELTAS),
        {"data_page_version": "2.0", "data_page_size": 100, "dictionary_pagesize_limit": 200},
        *({"compression": kind} for kind in ("none", "gzip", "brotli", "lz4", "zstd")),
        {"store_schema": False, "write_page_checksum": True, "use_compliant_nested_type": False},
        {"version": "1.0", "row_group_size": 1},
    ],
)
def test_every_way_of_writing_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "a.parquet", COLUMNS, **options)
    assert pa.Table.from_batches(decoded_batches(path)).to_pydict() == COLUMNS


def test_a_long_text_that_a_dictionary_repeats_is_decoded_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BATCH_BYTES", 10_000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": repeated(pa.array(["x" * 900]), 5000)}), path)
    assert path.stat().st_size < 5000
    sizes = [batch.nbytes for batch in decoded_batches(path)]
    assert max(sizes) < 11_000
    assert read_all(path) == 5000


def zeros(num_values: int) -> pa.Array:
    return pa.array(np.zeros(num_values))


BOMBS = {
    "a page of zeros": pa.array([b"\0" * 3_000_000]),
    "a row with two million numbers": pa.FixedSizeListArray.from_arrays(
        zeros(2_000_000), 2_000_000
    ),
    "texts in lists that a dictionary repeats": pa.ListArray.from_arrays(
        pa.array([0, 1000], pa.int32()), repeated(pa.array(["x" * 2_000_000]), 1000)
    ),
    "three million rows of nothing": pa.nulls(3_000_000, pa.int8()),
    "a long text in every row": repeated(pa.array(["x" * 50_000]), 1000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_would_unpack_to_very_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str
) -> None:
    monkeypatch.setattr(reading, "MAX_CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(reading, "FREE_VALUES", 1 << 20)
    monkeypatch.setattr(reading, "FREE_FILE_BYTES", 1 << 20)
    path = tmp_path / "bomb.parquet"
    table = pa.table({"a": BOMBS[bomb]})
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=2**31 - 1)
    assert path.stat().st_size < 50_000
    with pytest.raises(TableError, match=r"bomb\.parquet is not read: (column 'a'|it )"):
        read_all(path)


READ = """
import resource, sys
from pathlib import Path
from data_contracts.engine.reading import TableError, decoded_batches
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    for batch in decoded_batches(Path(sys.argv[1])):
        pass
except TableError as error:
    print(error)
"""


def test_a_bomb_of_gigabytes_is_told_in_a_process_of_two(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    table = pa.table({"a": repeated(pa.array(["x" * 30_000_000]), 1000)})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(path)], check=True, capture_output=True, text=True
    )
    assert "it unpacks to thousands of times its size" in answer.stdout


def test_a_value_that_is_larger_than_memory_should_hold_is_named_by_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BATCH_BYTES", 1000)
    path = write(tmp_path / "a.parquet", {"text": ["a", "b" * 2000]})
    with pytest.raises(TableError, match=r"a\.parquet is not read: row 1 holds 2000 bytes"):
        read_all(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"PAR1", "is cut off after 4 bytes"),
        (b"PAR1PAR1PAR1", "is damaged"),
        (b"PAR1" + b"\xff" * 100 + b"PAR1", "is damaged"),
        (b"\x89PNG" + bytes(100), r"is no Parquet file: it begins with b'\\x89PNG'"),
        (b"PAR1" + b"\x19" * 5000 + (5000).to_bytes(4, "little") + b"PAR1", "is damaged"),
        (b"PAR1" + b"\x1c" * 90_000 + (90_000).to_bytes(4, "little") + b"PAR1", "is damaged"),
    ],
)
def test_what_is_no_parquet_is_told_with_its_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    for read in (read_schema, num_rows, read_all):
        with pytest.raises(TableError, match=rf"a\.parquet {reason}"):
            read(path)


def test_a_folder_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(TableError, match="cannot be read"):
            read_schema(path)


def test_flipped_bytes_are_told_or_unseen_but_never_worse(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", COLUMNS, row_group_size=100)
    good, random = path.read_bytes(), Random(0)
    outcomes = set()
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(random.choice((1, 1, 3))):
            bad[random.randrange(4, len(bad) - 4)] = random.choice((0, 255, random.randrange(256)))
        path.write_bytes(bad)
        try:
            outcomes.add(read_all(path))
        except TableError as error:
            outcomes.add(f"told of {error.path.name}")
    assert "told of a.parquet" in outcomes


def test_rows_that_point_out_of_their_dictionary_are_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"a": ["x", "y"] * 100}, compression="none")
    content = path.read_bytes()
    place = content.index(b"x\x01\x00\x00\x00y") + 6
    outcomes = set()
    for offset in range(place, place + 60):
        bad = bytearray(content)
        bad[offset] = 0xFF
        path.write_bytes(bad)
        try:
            outcomes.add(read_all(path))
        except TableError as error:
            outcomes.add("dictionary" if "among" in str(error) else "told")
    assert outcomes <= {200, "told", "dictionary"}


def test_text_that_is_not_utf8_is_named_by_file_column_and_rows(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe", None])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers(), 1)
    path = write(tmp_path / "a.parquet", {"n": [1, 2, 3], "text": text})
    with pytest.raises(TableError, match=r"a\.parquet .*column 'text', rows 0 to 2.*UTF8"):
        read_all(path)
    assert sum(batch.num_rows for batch in raw_batches(path)) == 3
    assert sum(batch.num_rows for batch in decoded_batches(path, ["n"])) == 3


@pytest.mark.parametrize(("column", "reason"), [("b", "is missing"), ("a", "more than once")])
def test_a_column_that_is_not_there_once_is_named(tmp_path: Path, column: str, reason: str) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TableError, match=rf"a\.parquet .*column '{column}'.*{reason}"):
        list(decoded_batches(tmp_path / "a.parquet", [column]))


def test_a_path_that_arrow_would_take_for_a_uri_or_that_is_no_utf8_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in ("s3:x", "file:", os.fsdecode(b"\xff\xfe"), "a b%20c"):
        folder = Path(name)
        folder.mkdir()
        with (folder / "a.parquet").open("wb") as file:
            pq.write_table(pa.table({"a": [1]}), file)
        assert read_all(folder / "a.parquet") == 1


def test_the_footer_says_what_arrow_reads_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", COLUMNS, row_group_size=100)
    metadata = pq.read_metadata(path)
    found = read_chunks(path)
    assert len(found) == metadata.num_row_groups * metadata.num_columns == 9
    for number, chunk in enumerate(found):
        theirs = metadata.row_group(number // 3).column(number % 3)
        assert chunk.column == theirs.path_in_schema.split(".")[0]
        assert (chunk.num_values, chunk.unpacked, chunk.packed) == (
            theirs.num_values,
            theirs.total_uncompressed_size,
            theirs.total_compressed_size,
        )
    assert [chunk.is_nested for chunk in found[:3]] == [False, True, True]
    assert [chunk.is_text for chunk in found[:3]] == [True, False, True]


def test_reading_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": [f"{n:0900}" for n in range(60_000)]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_all(path) == 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
