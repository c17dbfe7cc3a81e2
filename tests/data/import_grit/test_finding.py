"""What `import-grit` reads of a folder with links, and of S3 keys that are no file names."""

import logging
import os
import uuid

import boto3
import pyarrow.parquet as pq
import pytest

from components.core.errors import InputError
from components.core.run import run_step
from components.core.s3 import S3Store
from components.core.tables import count_rows
from components.data.import_grit import import_grit, local_sources, s3_sources, safe_name
from tests.data.import_grit.test_import_grit import grit_table

LONG = "n" * 300


def table_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(grit_table(1), file)


def names_in(folder):
    return [str(source.name) for source in local_sources(folder)]


def test_files_behind_links_are_read_and_links_out_of_the_folder_told(tmp_path, caplog):
    source, disk = tmp_path / "source", tmp_path / "disk2"
    table_at(source / "a.parquet")
    table_at(disk / "b.parquet")
    table_at(tmp_path / "blobs" / "0c1f")
    (source / "more").symlink_to(disk)
    (source / "c.parquet").symlink_to("../blobs/0c1f")
    with caplog.at_level(logging.INFO):
        receipt = run_step(import_grit, {}, {"grit": tmp_path / "grit"}, {"uri": str(source)})
    assert receipt.metrics["records"] == count_rows(tmp_path / "grit") == 3
    assert f"c.parquet to {tmp_path}/blobs/0c1f, more to {disk}" in caplog.text
    assert "holds 3 .parquet files" in caplog.text
    table_at(disk / "d.parquet")
    receipt = run_step(import_grit, {}, {"grit": tmp_path / "grit"}, {"uri": str(source)})
    assert receipt.metrics["records"] == 4


def loop_to_parent(source):
    (source / "sub" / "again").symlink_to("..")


def loop_to_itself(source):
    (source / "sub" / "again").symlink_to("again")


def loop_through_outside(source):
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "back").symlink_to(source)
    (source / "sub" / "again").symlink_to(outside)


def loop_of_two(source):
    (source / "sub" / "again").symlink_to(source / "sub2")
    (source / "sub2" / "again").symlink_to(source / "sub")


@pytest.mark.parametrize("loop", [loop_to_parent, loop_through_outside, loop_of_two])
def test_a_loop_of_links_is_told_and_every_file_read_once(tmp_path, caplog, loop):
    source = tmp_path / "source"
    table_at(source / "sub" / "a.parquet")
    table_at(source / "sub2" / "b.parquet")
    loop(source)
    assert names_in(source) == ["sub/a.parquet", "sub2/b.parquet"]
    assert "again" in caplog.text
    assert "leads back to a folder above it" in caplog.text or "is the same as" in caplog.text


def test_folders_that_all_link_to_each_other_are_read_in_no_time(tmp_path):
    folders = [tmp_path / f"folder{number}" for number in range(40)]
    for folder in folders:
        table_at(folder / "a.parquet")
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    assert len(names_in(tmp_path)) == 40


@pytest.mark.parametrize(
    "link",
    [
        loop_to_itself,
        lambda source: (source / "sub" / "again").symlink_to("/mnt/not-mounted"),
        lambda source: (source / "again.parquet").symlink_to("gone.parquet"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error_that_names_it(tmp_path, link):
    table_at(tmp_path / "sub" / "a.parquet")
    link(tmp_path)
    with pytest.raises(InputError, match=r"again.* leads nowhere.*remove the link"):
        local_sources(tmp_path)


def link_to_file(source):
    (source / "0.parquet").symlink_to("sub/a.parquet")


def hard_link(source):
    os.link(source / "sub" / "a.parquet", source / "z.parquet")


def link_to_folder(source):
    (source / "0").symlink_to("sub")


@pytest.mark.parametrize("second", [link_to_file, hard_link, link_to_folder])
def test_two_paths_to_one_file_are_read_once_and_told(tmp_path, caplog, second):
    table_at(tmp_path / "sub" / "a.parquet")
    second(tmp_path)
    assert names_in(tmp_path) == ["sub/a.parquet"]
    assert "is the same" in caplog.text


def test_hidden_names_and_what_is_no_file_are_left_out_and_told(tmp_path, caplog):
    for name in ("a.parquet", ".b.parquet", ".c/x.parquet", "_temporary/0/y.parquet"):
        table_at(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.parquet")
    with caplog.at_level(logging.INFO):
        assert names_in(tmp_path) == ["a.parquet"]
    assert "_temporary/0/y.parquet" in caplog.text
    assert "2 hidden files or folders" in caplog.text
    assert "pipe.parquet is a pipe" in caplog.text


@pytest.mark.parametrize("output", ["grit", "run/grit", "sub/../grit"])
def test_a_folder_is_not_imported_into_itself(tmp_path, output):
    table_at(tmp_path / "sub" / "a.parquet")
    with pytest.raises(InputError, match="name another output"):
        run_step(import_grit, {}, {"grit": tmp_path / output}, {"uri": str(tmp_path)})
    receipt = run_step(import_grit, {}, {"grit": tmp_path / "grit"}, {"uri": str(tmp_path / "sub")})
    assert receipt.metrics["files"] == 1


def test_a_folder_that_is_called_like_a_file_is_a_folder(tmp_path):
    table_at(tmp_path / "source" / "grit.parquet" / "part-0.parquet")
    run_step(import_grit, {}, {"grit": tmp_path / "grit"}, {"uri": str(tmp_path / "source")})
    assert count_rows(tmp_path / "grit") == 1


@pytest.mark.parametrize(
    "names",
    [
        ("A.parquet", "a.parquet"),
        ("a.PARQUET", "a.parquet"),
        (
            "caf\N{LATIN SMALL LETTER E WITH ACUTE}.parquet",
            "cafe\N{COMBINING ACUTE ACCENT}.parquet",
        ),
        ("line\nbreak.parquet", "line-break.parquet"),
        ("back\\slash.parquet", "back-slash.parquet"),
        ("n" * 240 + "1.parquet", "n" * 240 + "2.parquet"),
        (os.fsdecode(b"\xff.parquet"), os.fsdecode(b"\xfe.parquet")),
        ("DATA/a.parquet", "data/A.parquet"),
    ],
)
def test_files_whose_names_other_file_systems_take_for_one_are_all_read(tmp_path, names):
    for name in names:
        table_at(tmp_path / "source" / name)
    run_step(import_grit, {}, {"grit": tmp_path / "grit"}, {"uri": str(tmp_path / "source")})
    assert count_rows(tmp_path / "grit") == 2
    ours = [path.relative_to(tmp_path / "grit") for path in (tmp_path / "grit").rglob("*.parquet")]
    assert len({str(path).casefold() for path in ours}) == 2
    for path in ours:
        assert str(path).isprintable()
        assert len(path.name.encode()) < 200


@pytest.mark.parametrize(
    "keys",
    [
        ("data/a.parquet", "data//a.parquet", "data///a.parquet"),
        ("data/a.parquet", "data/a.parquet/b.parquet"),
        (f"data/{LONG}/{LONG}.parquet", f"data/{LONG}/{LONG}x.parquet"),
        ("data/" + "d/" * 480 + "a.parquet", "data/a.parquet"),
        ("data/a\tb.parquet", "data/a-b.parquet", "data/a:b.parquet", "data/a?b.parquet"),
        ("data/A.parquet", "data/a.parquet"),
    ],
)
def test_keys_that_are_no_file_names_are_brought_under_names_of_their_own(keys, tmp_path):
    class Store:
        def find(self, uri):
            from components.core.s3 import S3Object

            return [S3Object("bucket", key, 4, "tag") for key in keys]

    sources = s3_sources(Store(), "s3://bucket/data")
    names = [source.name for source in sources]
    assert sorted(source.origin.key for source in sources) == sorted(keys)
    assert len({str(name).casefold() for name in names}) == len(keys)
    for name in names:  # all of them can lie in one folder
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(keys)


@pytest.mark.parametrize("name", ["../x.parquet", "a/../x.parquet", "a/./../..//x.parquet"])
def test_keys_that_lead_out_are_refused(name):
    with pytest.raises(InputError, match="cannot become a file name"):
        safe_name(name, f"s3://bucket/{name}")


def test_odd_keys_of_a_real_store_are_brought(tmp_path, s3_endpoint):
    bucket = f"odd-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    keys = ["data/a b+c%20d&e.parquet", "data/ünï/ö.parquet", "data/A.parquet", "data/a.parquet"]
    for number, key in enumerate(keys, start=1):
        pq.write_table(grit_table(number), tmp_path / "new.parquet")
        client.upload_file(str(tmp_path / "new.parquet"), bucket, key)
    settings = {"uri": f"s3://{bucket}/data", "endpoint_url": s3_endpoint}
    receipt = run_step(import_grit, {}, {"grit": tmp_path / "grit"}, settings)
    assert receipt.metrics["records"] == count_rows(tmp_path / "grit") == 10
    one = {"uri": f"s3://{bucket}/data/ünï/ö.parquet", "endpoint_url": s3_endpoint}
    assert run_step(import_grit, {}, {"grit": tmp_path / "one"}, one).metrics["records"] == 2
    assert S3Store(s3_endpoint).list_objects(f"s3://{bucket}/nothing") == []
