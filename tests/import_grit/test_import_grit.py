"""`import-grit` brings GRIT's files whole, once, and refuses others by name."""

import os
import uuid

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.import_grit.step import import_grit, safe_name
from components.kernel.errors import InputError
from components.kernel.run import run_step
from components.kernel.s3 import S3Store
from components.kernel.tables import count_rows
from data_contracts.grit import SCHEMA


def grit_table(num_records=3):
    columns = {field.name: pa.nulls(num_records, field.type) for field in SCHEMA}
    columns["id"] = pa.array(range(num_records))
    for name in ("url", "caption"):
        columns[name] = pa.array([f"https://a.example/{n}" for n in range(num_records)])
    for name in ("width", "height"):
        columns[name] = pa.array([500] * num_records)
    columns["ref_exps"] = pa.array([[[0.0, 3, 0, 0, 1, 1, 1]]] * num_records)
    return pa.table(columns)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name in ("grit-20m/coyo_0_snappy.parquet", "grit-20m/coyo_1_snappy.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(grit_table(), folder / name)
    (folder / "README.md").write_text("not a table")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "half.parquet").write_bytes(b"unfinished")
    return folder


@pytest.fixture
def bucket(source, s3_endpoint):
    name = f"grit-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=name)
    for path in source.rglob("*"):
        if path.is_file() and not path.parent.name.startswith("."):
            client.upload_file(str(path), name, f"data/{path.relative_to(source)}")
    client.put_object(Bucket=name, Key="data-of-others/x.parquet", Body=b"not ours")
    return name


def run(tmp_path, **settings):
    return run_step(import_grit, {}, {"grit": tmp_path / "grit"}, settings)


def test_local_files_are_linked_under_their_names(tmp_path, source):
    receipt = run(tmp_path, uri=str(source))
    assert (receipt.metrics["files"], receipt.metrics["records"]) == (2, 6)
    for name in ("coyo_0_snappy.parquet", "coyo_1_snappy.parquet"):
        assert os.path.samefile(tmp_path / "grit/grit-20m" / name, source / "grit-20m" / name)
    assert count_rows(tmp_path / "grit") == 6


def test_where_links_are_impossible_files_are_copied(tmp_path, source, monkeypatch):
    def refuse(*_arguments):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    import_grit.function(
        grit=tmp_path / "copy", settings=import_grit.settings_type(uri=str(source))
    )
    assert count_rows(tmp_path / "copy") == 6


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (grit_table().drop_columns(["url", "width"]), "column 'url' is missing; column 'width'"),
        (
            grit_table().set_column(8, "noun_chunks", pa.array(["x"] * 3)),
            "column 'noun_chunks' is string, not list",
        ),
        (grit_table().set_column(3, "id", pa.array(["x"] * 3)), "column 'id' is string, not int64"),
    ],
)
def test_a_table_that_is_not_grit_is_refused_by_file_and_column(tmp_path, source, table, message):
    pq.write_table(table, source / "wrong.parquet")
    with pytest.raises(InputError, match=f"wrong.parquet.*{message}"):
        run(tmp_path, uri=str(source))
    assert not (tmp_path / "grit").exists()
    pq.write_table(grit_table(), source / "wrong.parquet")
    assert run(tmp_path, uri=str(source)).metrics["files"] == 3


def test_a_damaged_file_is_refused_by_name(tmp_path, source):
    (source / "broken.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match=r"broken\.parquet.*not a Parquet file"):
        run(tmp_path, uri=str(source))


@pytest.mark.parametrize("uri", ["", "no/such/folder", "s3://"])
def test_a_source_that_is_not_there_is_told(tmp_path, uri):
    with pytest.raises(InputError, match=r"import_grit\.uri|s3://bucket/prefix"):
        run(tmp_path, uri=uri)


@pytest.mark.parametrize(
    "name", ["../x.parquet", "a/../../x.parquet", "/etc/x.parquet", ".x.parquet"]
)
def test_a_key_that_leads_out_of_the_artifact_is_refused(name):
    with pytest.raises(InputError, match="cannot become a file name"):
        safe_name(name, f"s3://bucket/{name}")


def test_an_s3_prefix_is_brought_without_its_neighbours(tmp_path, source, bucket, s3_endpoint):
    receipt = run(tmp_path, uri=f"s3://{bucket}/data", endpoint_url=s3_endpoint)
    assert receipt.metrics["records"] == 6
    for path in (source / "grit-20m").iterdir():
        assert (tmp_path / "grit/grit-20m" / path.name).read_bytes() == path.read_bytes()


def test_a_killed_download_goes_on_inside_the_file(tmp_path, source, bucket, s3_endpoint):
    store = S3Store(s3_endpoint)
    item = store.list_objects(f"s3://{bucket}/data")[-1]
    body = (source / item.key.removeprefix("data/")).read_bytes()
    target = tmp_path / "half.parquet"
    tag = "".join(char for char in item.etag if char.isalnum())
    (tmp_path / f".half.parquet.{tag}.partial").write_bytes(body[:100])
    assert sum(store.download(item, target)) == len(body) - 100
    assert target.read_bytes() == body


def test_a_bucket_that_is_not_there_is_told(tmp_path, s3_endpoint):
    with pytest.raises(InputError, match=r"cannot read s3://nowhere-at-all"):
        run(tmp_path, uri="s3://nowhere-at-all/x", endpoint_url=s3_endpoint)


def test_files_that_came_before_a_kill_are_not_fetched_again(
    tmp_path, bucket, s3_endpoint, monkeypatch
):
    fetched = []
    original = S3Store.download

    def counting(self, item, target):
        if len(fetched) == 1:
            raise KeyboardInterrupt
        fetched.append(item.key)
        return original(self, item, target)

    settings = {"uri": f"s3://{bucket}/data", "endpoint_url": s3_endpoint}
    monkeypatch.setattr(S3Store, "download", counting)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **settings)
    monkeypatch.setattr(
        S3Store,
        "download",
        lambda self, item, target: fetched.append(item.key) or original(self, item, target),
    )
    run(tmp_path, **settings)
    assert fetched == ["data/grit-20m/coyo_0_snappy.parquet", "data/grit-20m/coyo_1_snappy.parquet"]
