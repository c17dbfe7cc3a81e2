"""`import-grit` brings GRIT's files whole, once, and refuses others by name."""

import os
import shutil
import uuid

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import ContractViolation, InputError
from components.core.run import run_step
from components.core.s3 import S3Store
from components.data.import_grit import import_grit, safe_name
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


def test_local_files_are_copied_under_their_names_and_the_users_own_stay_as_they_are(
    tmp_path, source
):
    theirs = sorted(source.rglob("coyo*.parquet"))
    for path in theirs:
        path.chmod(0o600)
    before = [path.stat() for path in theirs]
    umask = os.umask(0o027)
    try:
        receipt = run(tmp_path, uri=str(source))
    finally:
        os.umask(umask)
    assert (receipt.metrics["files"], receipt.metrics["records"]) == (2, 6)
    for path, stat in zip(theirs, before, strict=True):
        ours = tmp_path / "grit" / path.relative_to(source)
        assert (ours.stat().st_mode & 0o777, ours.stat().st_nlink) == (0o640, 1)
        assert ours.read_bytes() == path.read_bytes()
        now = path.stat()
        assert (now.st_mode, now.st_nlink, now.st_ctime_ns) == (
            stat.st_mode,
            1,
            stat.st_ctime_ns,
        )


def test_a_file_that_changes_while_it_is_copied_is_told(tmp_path, source, monkeypatch):
    victim = source / "grit-20m" / "coyo_0_snappy.parquet"
    original = shutil.copyfileobj

    def meanwhile(read, write, size):
        with victim.open("ab") as file:
            file.write(b"more")
        original(read, write, size)

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    with pytest.raises(InputError, match=r"coyo_0_snappy\.parquet: it changed while it was copied"):
        run(tmp_path, uri=str(source))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (grit_table().drop_columns(["url", "width"]), "column 'url' is missing; column 'width'"),
        (
            grit_table().set_column(8, "noun_chunks", pa.array(["x"] * 3)),
            "column 'noun_chunks' is string, not list",
        ),
        (
            grit_table().set_column(3, "id", pa.array([[1]] * 3)),
            "column 'id' is list<element: int64>, not int64",
        ),
        (
            grit_table().append_column("url", pa.array(["x"] * 3)),
            "column 'url' comes 2 times",
        ),
    ],
)
def test_a_table_that_is_not_grit_is_refused_by_file_and_column(tmp_path, source, table, message):
    pq.write_table(table, source / "wrong.parquet")
    with pytest.raises(InputError, match=f"wrong.parquet.*{message}"):
        run(tmp_path, uri=str(source))
    assert not (tmp_path / "grit").exists()
    pq.write_table(grit_table(), source / "wrong.parquet")
    assert run(tmp_path, uri=str(source)).metrics["files"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: b"PAR1 nothing PAR1", "is damaged"),
        (lambda good: b"", r"is empty \(0 bytes\)"),
        (lambda good: good[: len(good) // 2], "is cut off after"),
        (lambda good: good[:-1], "is cut off after"),
        (lambda good: b"<html>not found</html>", "begins with b'<htm'"),
        (lambda good: good[:200] + bytes(300) + good[500:], "is damaged"),
        (lambda good: good[:-200] + b"\xff" * 150 + good[-50:], "is damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_brought_again_when_it_is_mended(
    tmp_path, source, content, message
):
    good = (source / "grit-20m" / "coyo_0_snappy.parquet").read_bytes()
    (source / "broken.parquet").write_bytes(content(good))
    with pytest.raises(InputError, match=rf"broken\.parquet.*not a Parquet file.*{message}"):
        run(tmp_path, uri=str(source))
    (source / "broken.parquet").write_bytes(good)
    assert run(tmp_path, uri=str(source)).metrics["records"] == 9


def test_a_source_that_changed_is_imported_again_and_an_equal_one_is_not(tmp_path, source):
    first = run(tmp_path, uri=str(source))
    (source / "README.md").write_text("another text, which is no table")
    os.utime(source / "grit-20m" / "coyo_0_snappy.parquet")
    assert run(tmp_path, uri=str(source)) == first
    pq.write_table(grit_table(5), source / "grit-20m" / "coyo_0_snappy.parquet")
    assert run(tmp_path, uri=str(source)).metrics["records"] == 8
    (source / "grit-20m" / "coyo_1_snappy.parquet").rename(source / "other.parquet")
    run(tmp_path, uri=str(source))
    assert (tmp_path / "grit" / "other.parquet").exists()
    assert not (tmp_path / "grit" / "grit-20m" / "coyo_1_snappy.parquet").exists()


def test_a_source_that_was_mended_after_a_violation_is_judged_again(tmp_path, source):
    bad = grit_table(40).set_column(4, "url", pa.nulls(40, pa.string()))
    pq.write_table(bad, source / "grit-20m" / "coyo_0_snappy.parquet")
    with pytest.raises(ContractViolation, match="url_present"):
        run(tmp_path, uri=str(source))
    pq.write_table(grit_table(40), source / "grit-20m" / "coyo_0_snappy.parquet")
    assert run(tmp_path, uri=str(source)).metrics["records"] == 43
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grit", "source"]


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


def test_after_a_violation_only_what_changed_is_fetched_again(
    tmp_path, source, bucket, s3_endpoint, monkeypatch
):
    fetched = []
    original = S3Store.download
    monkeypatch.setattr(
        S3Store,
        "download",
        lambda self, item, target: (
            fetched.append(item.key[-17:-15]) or original(self, item, target)
        ),
    )
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    settings = {"uri": f"s3://{bucket}/data", "endpoint_url": s3_endpoint}

    def put(table):
        pq.write_table(table, tmp_path / "new.parquet")
        key = "data/grit-20m/coyo_1_snappy.parquet"
        client.upload_file(str(tmp_path / "new.parquet"), bucket, key)

    put(grit_table(40).set_column(4, "url", pa.nulls(40, pa.string())))
    with pytest.raises(ContractViolation, match="url_present"):
        run(tmp_path, **settings)
    put(grit_table(40))
    assert run(tmp_path, **settings).metrics["records"] == 43
    assert fetched == ["_0", "_1", "_1"]
    assert not list((tmp_path / "grit").rglob("_work"))
    put(grit_table(41))
    assert run(tmp_path, **settings).metrics["records"] == 44
