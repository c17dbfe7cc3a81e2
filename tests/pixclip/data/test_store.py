import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from pixclip.data.errors import DataError
from pixclip.data.shards import iterate_images
from pixclip.data.store import Store
from tests.pixclip.data.test_loader import assert_equal
from tests.pixclip.data.world import open_longgrit


@pytest.fixture
def bucket(s3_endpoint, longgrit, monkeypatch):
    """The data set in a real S3 store; gives its URI."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    bucket = f"longgrit-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    for path in longgrit.rglob("*.*"):
        client.upload_file(str(path), bucket, f"v1/{path.relative_to(longgrit)}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return f"s3://{bucket}/v1"


def cached(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_batches_from_s3_are_those_from_disk(bucket, longgrit, tmp_path):
    local = list(open_longgrit(longgrit, batch_size=11).batches(epoch=0))
    remote = open_longgrit(bucket, cache=tmp_path, batch_size=11)
    for num_workers in (0, 2):
        for one, other in zip(local, remote.batches(epoch=0, num_workers=num_workers), strict=True):
            assert_equal(one, other)
    assert len(cached(tmp_path)) == 5  # four shards and the manifest, once each


def test_images_from_s3_are_those_from_disk(bucket, longgrit, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXCLIP_CACHE", str(tmp_path))
    assert list(iterate_images(bucket, "train")) == list(iterate_images(longgrit, "train"))


@pytest.fixture
def memory(monkeypatch):
    """Three files of 100 bytes in fsspec's store in memory; counts the downloads."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name in "abc":
        files.pipe(f"/data/{name}.tar", name.encode() * 100)
    fetched: list[str] = []
    get_file = type(files).get_file

    def counting(self, source, target, **options):
        fetched.append(source.rsplit("/", 1)[1])
        time.sleep(0.02)
        return get_file(self, source, target, **options)

    monkeypatch.setattr(type(files), "get_file", counting)
    return fetched


def read(store, name):
    with store.open(name) as file:
        return file.read()


def test_a_file_is_downloaded_once(memory, tmp_path):
    stores = [Store("memory://data", tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda n: read(stores[n % 2], "a.tar"), range(8)))
    assert contents == [b"a" * 100] * 8
    assert memory == ["a.tar"]


def test_the_cache_stays_small_and_drops_what_was_used_longest_ago(memory, tmp_path):
    store = Store("memory://data", tmp_path, cache_bytes=250)
    for name in ("a.tar", "b.tar", "a.tar", "c.tar", "a.tar", "b.tar"):
        assert read(store, name) == name[:1].encode() * 100
        assert len(cached(tmp_path)) <= 2
        time.sleep(0.01)
    assert memory == ["a.tar", "b.tar", "c.tar", "b.tar"]


def test_a_file_that_another_process_dropped_is_fetched_again(memory, tmp_path):
    store = Store("memory://data", tmp_path)
    read(store, "a.tar")
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    assert read(store, "a.tar") == b"a" * 100


def test_processes_that_share_a_small_cache_do_not_miss_a_file(tmp_path):
    source, names = tmp_path / "source", [f"{n}.tar" for n in range(400)]
    source.mkdir()
    for name in names:
        (source / name).write_bytes(name.encode() * 100)
    stores = [Store(f"local://{source}", tmp_path / "cache", 50_000) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda n: read(stores[n % 4], names[n]), range(len(names))))
    assert contents == [name.encode() * 100 for name in names]


def test_a_file_that_vanishes_while_the_cache_is_listed_is_passed_over(memory, tmp_path):
    (tmp_path / "vanished.tar").symlink_to(tmp_path / "nothing")
    assert read(Store("memory://data", tmp_path), "a.tar") == b"a" * 100


def test_a_cache_that_keeps_losing_a_file_is_told_apart_from_a_missing_file(memory, tmp_path):
    class Losing(Store):
        @staticmethod
        def _touch(path):
            path.unlink()
            return path

    with pytest.raises(DataError, match=r"a.tar was dropped from .* give it more room"):
        Losing("memory://data", tmp_path).open("a.tar")


def test_an_open_file_outlives_its_place_in_the_cache(memory, tmp_path):
    store = Store("memory://data", tmp_path, cache_bytes=100)
    with store.open("a.tar") as file:
        read(store, "b.tar")
        assert file.read() == b"a" * 100


def test_a_file_that_changed_is_fetched_again(memory, tmp_path):
    assert read(Store("memory://data", tmp_path), "a.tar") == b"a" * 100
    fsspec.filesystem("memory").pipe("/data/a.tar", b"x" * 50)
    assert read(Store("memory://data", tmp_path), "a.tar") == b"x" * 50


def test_a_download_that_failed_leaves_nothing(memory, tmp_path, monkeypatch):
    files = fsspec.filesystem("memory")

    def short(self, source, target, **options):
        with open(target, "wb") as file:
            file.write(b"a" * 10)

    monkeypatch.setattr(type(files), "get_file", short)
    with pytest.raises(DataError, match="cut short"):
        Store("memory://data", tmp_path).open("a.tar")
    assert cached(tmp_path) == []


def test_a_missing_file_is_named(memory, tmp_path):
    with pytest.raises(DataError, match=r"memory://data has no file z.tar"):
        Store("memory://data", tmp_path).open("z.tar")
    with pytest.raises(DataError, match=r"has no file z.tar"):
        Store(tmp_path).open("z.tar")


def test_a_file_uri_is_a_folder(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"a")
    assert read(Store(f"file://{tmp_path}"), "a.tar") == b"a"
    assert os.listdir(tmp_path) == ["a.tar"]
