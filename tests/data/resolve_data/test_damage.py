"""Only the published bytes are handed on: every digest is checked on the way in."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from components.core.digests import file_digests
from components.core.errors import InputError
from components.core.tables import WORK_FOLDER
from components.data.publish.repository import DataRepository
from components.data.publish.storage import Remote
from components.data.resolve_data.step import ResolveDataSettings, resolve_data
from tests.data_repository import SHARD, copied, object_of, publish_data, write_data
from tests.receipts import write_receipt


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("template")
    files = {
        "train/00000.tar": SHARD,
        "val/00000.tar": b"another shard",
        "val/00001.tar": b"another shard",  # one object in the storage, two files here
        "manifest.parquet": b"rows",
    }
    data = write_data(root, files)
    named = {f"longgrit/{name}": digest for name, digest in file_digests(data).items()}
    write_receipt(data, "pack", "longgrit", files=named)
    publish_data(root)
    return root


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path)


def bring(root: Path, **settings: str) -> dict[str, bytes]:
    """Run the step alone, and what it brought."""
    settings = settings or {"repository": str(root / "repository")}
    resolve_data.function(root / "brought", settings=ResolveDataSettings(**settings))
    return content(root / "brought")


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in ("_receipt.json", "version.json")
        and WORK_FOLDER not in path.parts
    }


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


HARMS = [flip, cut, lengthen, Path.unlink, lambda path: path.write_bytes(b"")]
NAMES = ["flipped", "cut", "longer", "gone", "empty"]


@pytest.mark.parametrize("harm", HARMS, ids=NAMES)
@pytest.mark.parametrize("place", ["storage", "repository/.dvc/cache"])
def test_what_is_damaged_in_one_place_is_taken_from_the_other(root, harm, place, caplog):
    harm(writable(object_of(root / place)))
    assert bring(root) == content(root / "longgrit")
    if place != "storage" and harm is not Path.unlink:
        assert "train/00000.tar: " in caplog.text
        assert "is damaged: it holds other bytes" in caplog.text


@pytest.mark.parametrize("harm", HARMS, ids=NAMES)
def test_what_is_damaged_everywhere_is_refused_by_name_with_every_place(root, harm):
    for place in ("storage", "repository/.dvc/cache"):
        harm(writable(object_of(root / place)))
    with pytest.raises(InputError) as refused:
        bring(root)
    assert str(refused.value).startswith("train/00000.tar is not to be had as it was published")
    assert str(root / "storage") in str(refused.value)
    assert "publish the same data set again" in str(refused.value)


@pytest.mark.parametrize("harm", HARMS, ids=NAMES)
def test_a_damaged_listing_is_refused(root, harm):
    shutil.rmtree(root / "repository" / ".dvc" / "cache")
    (listing,) = (root / "storage").rglob("*.dir")
    listing.chmod(0o644)
    harm(listing)
    with pytest.raises(InputError, match="the listing of 'longgrit' is not to be had"):
        bring(root)


def test_a_storage_that_is_gone_is_refused_and_a_rerun_after_its_return_goes_on(root):
    shutil.rmtree(root / "repository" / ".dvc" / "cache")
    (root / "storage").rename(root / "elsewhere")
    with pytest.raises(InputError, match=r"no .*/storage/files/md5"):
        bring(root)
    (root / "elsewhere").rename(root / "storage")
    assert bring(root) == content(root / "longgrit")


def test_an_attempt_that_was_killed_leaves_no_file_of_another_version(root):
    bring(root)
    (root / "brought" / "train" / "00009.tar").write_bytes(b"of another version")
    kept = next((root / "brought" / WORK_FOLDER / "objects").iterdir())
    kept.unlink()
    kept.write_bytes(b"half")  # and what it had fetched is not believed either
    assert bring(root) == content(root / "longgrit")


EDITS: dict[str, Callable[[Path], object]] = {
    "flipped": lambda data: flip(data / "train" / "00000.tar"),
    "cut": lambda data: cut(data / "manifest.parquet"),
    "missing": lambda data: (data / "val" / "00000.tar").unlink(),
    "more": lambda data: (data / "val" / "00002.tar").write_bytes(SHARD),
    "swapped": lambda data: (data / "val" / "00000.tar").write_bytes(SHARD),
    "receipt": lambda data: flip(data / "_receipt.json"),
    "empty receipt": lambda data: (data / "_receipt.json").write_text(""),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_folder_that_is_not_what_its_receipt_says_is_refused(root, edit):
    edit(root / "longgrit")
    with pytest.raises(InputError, match=r"what was brought from .*longgrit is damaged there"):
        bring(root, uri=str(root / "longgrit"))


def test_a_note_beside_the_data_is_no_damage(root):
    (root / "longgrit" / "NOTES.md").write_text("mine")
    assert bring(root, uri=str(root / "longgrit"))["NOTES.md"] == b"mine"


def test_a_receipt_of_an_older_release_vouches_for_its_files_too(root):
    receipt = root / "longgrit" / "_receipt.json"
    old = json.loads(receipt.read_text())
    for name in ("checksum", "version", "artifact", "thresholds"):
        del old[name]
    receipt.write_text(json.dumps(old))
    assert bring(root, uri=str(root / "longgrit")) == content(root / "longgrit")
    flip(root / "longgrit" / "manifest.parquet")
    with pytest.raises(InputError, match=r"not as `pack` wrote them, e\.g\. manifest\.parquet"):
        bring(root, uri=str(root / "longgrit"))


@pytest.mark.parametrize("source", ["uri", "repository"])
def test_nothing_is_linked_and_modes_follow_the_umask(root, source):
    for path in (root / "longgrit").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    before = {path: path.stat() for name in ("longgrit", "repository", "storage")
              for path in (root / name).rglob("*") if path.is_file()}  # fmt: skip
    old = os.umask(0o027)
    try:
        bring(root, **{source: str(root / ("longgrit" if source == "uri" else "repository"))})
    finally:
        os.umask(old)
    brought = [
        path.stat()
        for path in (root / "brought").rglob("*")
        if path.is_file() and WORK_FOLDER not in path.parts
    ]
    assert not {found.st_ino for found in brought} & {found.st_ino for found in before.values()}
    for path, found in before.items():
        assert (path.stat().st_mode, path.stat().st_nlink) == (found.st_mode, found.st_nlink)
    assert {stat.S_IMODE(found.st_mode) for found in brought} == {0o640}


def test_links_in_a_folder_are_followed_and_circles_and_dead_ends_told(root, tmp_path):
    data = root / "longgrit"
    (data / "train").rename(tmp_path / "elsewhere")
    (data / "train").symlink_to(tmp_path / "elsewhere")
    assert bring(root, uri=str(data))["train/00000.tar"] == SHARD
    (data / "round").symlink_to(data)
    with pytest.raises(InputError, match="round: this link leads in a circle"):
        bring(root, uri=str(data))
    (data / "round").unlink()
    (data / "gone.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"gone\.tar is no file that can be read"):
        bring(root, uri=str(data))


def test_a_folder_around_the_output_is_refused(root):
    with pytest.raises(InputError, match="holds the output"):
        bring(root, uri=str(root))


@pytest.mark.slow
def test_a_version_in_s3_is_checked_and_a_rerun_fetches_only_the_rest(root, s3_endpoint, tmp_path):
    client, bucket = boto3.client("s3", endpoint_url=s3_endpoint), "damaged-versions"
    client.create_bucket(Bucket=bucket)
    repository = DataRepository(tmp_path / "s3", Remote(f"s3://{bucket}/x", s3_endpoint))
    repository.publish(root / "longgrit", "longgrit", "Publish")
    cache = tmp_path / "s3" / ".dvc" / "cache"
    key = f"x/{object_of(cache).relative_to(cache)}"
    shutil.rmtree(cache)
    where = {"repository": str(tmp_path / "s3"), "endpoint_url": s3_endpoint}
    client.put_object(Bucket=bucket, Key=key, Body=SHARD[:-1] + b"x")
    with pytest.raises(InputError, match=r"train/00000\.tar is not .* is damaged"):
        bring(root, **where)
    client.put_object(Bucket=bucket, Key=key, Body=SHARD)
    assert bring(root, **where) == content(root / "longgrit")
    with pytest.raises(InputError, match=r"does not decide where signed requests go"):
        bring(root, repository=str(tmp_path / "s3"))
