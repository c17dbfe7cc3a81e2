"""Publishing with real Git and real DVC."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from components.core.digests import file_sha256
from components.core.errors import InputError
from components.data.publish.repository import DataRepository
from components.data.publish.step import PublishSettings, publish
from components.data.publish.storage import PublishError, Remote
from tests.receipts import write_receipt
from tests.s3_server import s3_server


@pytest.fixture(autouse=True)
def no_identity(tmp_path, monkeypatch):
    """A machine on which Git knows no user."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{name}_EMAIL", raising=False)


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "run" / "longgrit"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "00000.tar").write_bytes(b"shard" * 1000)
    write_receipt(
        folder, "pack", "longgrit", metrics={"num_images": 7}, contracts={"longgrit": "digest"}
    )
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def pull(repository: Path, clone: Path) -> Path:
    """What another machine gets from the repository and its remote."""
    git(repository.parent, "clone", "--quiet", str(repository), str(clone))
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=clone, env=environment, check=True
    )
    return clone / "longgrit"


@pytest.fixture
def project(tmp_path) -> Path:
    """A Git repository of the user's own, with something staged."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "Ada")
    (folder / "notes.txt").write_text("mine")
    git(folder, "add", "notes.txt")
    return folder


def test_versions_are_committed_pushed_and_stored_once(data, project, tmp_path):
    publication = tmp_path / "publication"
    settings = PublishSettings(repository=str(project))
    metrics = publish.function(data, publication, settings=settings)
    told = json.loads((publication / "publication.json").read_text())
    assert metrics["num_new_versions"] == 1
    assert told["git_commit"] == git(project, "rev-parse", "HEAD").strip()
    assert told["dvc_md5"] in (project / "longgrit.dvc").read_text()
    assert told["counts"] == {"num_images": 7}
    assert told["contracts_met"] == ["longgrit"]
    assert git(project, "log", "-1", "--format=%an: %B").startswith("Ada: Publish longgrit\n\nnum_")
    # The repository's file and the one in DVC's cache are one and the same; the run's is its own.
    assert (project / "longgrit" / "train" / "00000.tar").stat().st_nlink == 2
    assert (data / "train" / "00000.tar").stat().st_nlink == 1
    assert git(project, "status", "--porcelain") == "A  notes.txt\n", "what was staged stays so"

    again = publish.function(data, publication, settings=settings)
    assert again["num_new_versions"] == 0
    assert json.loads((publication / "publication.json").read_text()) == told

    (data / "card.md").write_text("more")
    changed = publish.function(data, publication, settings=settings)
    assert changed["num_new_versions"] == 1
    assert changed["num_files"] == metrics["num_files"] + 1
    git(project, "checkout", "--quiet", told["git_commit"])
    pulled = pull(project, tmp_path / "clone")
    assert (pulled / "train" / "00000.tar").read_bytes() == b"shard" * 1000
    assert not (pulled / "card.md").exists(), "the first version is still to be had"


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), Path.unlink])
def test_a_data_set_that_changed_since_it_was_packed_is_not_published(data, tmp_path, damage):
    shard = data / "train" / "00000.tar"
    files = {"longgrit/train/00000.tar": file_sha256(shard)}
    write_receipt(data, "pack", "longgrit", contracts={"longgrit": "digest"}, files=files)
    settings = PublishSettings(repository=str(tmp_path / "repository"))
    publish.function(data, tmp_path / "publication", settings=settings)
    damage(shard)
    with pytest.raises(InputError, match=r"not as `pack` wrote them.*train/00000\.tar"):
        publish.function(data, tmp_path / "publication", settings=settings)


def test_files_of_the_repositorys_own_are_not_replaced(data, project):
    (project / "docs").mkdir()
    (project / "docs" / "page.md").write_text("mine")
    git(project, "add", "docs")
    with pytest.raises(PublishError, match="files of its own under `docs`"):
        DataRepository(project, Remote("../../storage")).publish(data, "docs", "Publish")
    assert (project / "docs" / "page.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("repository", "remote"),
    [("longgrit", ""), ("longgrit/train/deep", ""), (".", ""), ("../kept", "longgrit/store")],
)
def test_nothing_is_written_into_the_data_that_is_published(data, repository, remote, monkeypatch):
    monkeypatch.chdir(data.parent)
    before = sorted(data.parent.rglob("*"))
    settings = PublishSettings(repository=repository, remote=remote)
    with pytest.raises(PublishError, match=r"overlaps .* another publish\.(repository|remote)$"):
        publish.function(data, data.parent / "publication", settings=settings)
    assert sorted(data.parent.rglob("*")) == before


def test_an_address_may_hold_a_percent_sign(data, tmp_path):
    remote = Remote(str(tmp_path / "storage%20of%20mine"))
    DataRepository(tmp_path / "repository", remote).publish(data, "longgrit", "Publish")
    assert (tmp_path / "storage%20of%20mine" / "files").is_dir()


def test_a_failed_push_commits_nothing_and_says_what_dvc_said(data, tmp_path):
    (tmp_path / "storage").write_text("a file where the remote's folder should be")
    repository = DataRepository(tmp_path / "repository", Remote("../../storage"))
    with pytest.raises(PublishError, match="`dvc push"):
        repository.publish(data, "longgrit", "Publish")
    assert not git(repository.folder, "log", "--all", "--oneline")


@pytest.mark.slow
def test_a_version_is_pushed_to_a_real_s3_server(data, tmp_path):
    with s3_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="versions")
        settings = PublishSettings(
            repository=str(tmp_path / "repository"),
            remote="s3://versions/longgrit",
            endpoint_url=endpoint,
        )
        publish.function(data, tmp_path / "publication", settings=settings)
        keys = {item["Key"] for item in client.list_objects_v2(Bucket="versions")["Contents"]}
        (shard,) = [key for key in keys if key.endswith(md5(b"shard" * 1000)[2:])]
        client.delete_object(Bucket="versions", Key=shard)
        again = publish.function(data, tmp_path / "publication", settings=settings)
        assert again["num_new_versions"] == 0, "the commit stands, the object is put back"
        pulled = pull(tmp_path / "repository", tmp_path / "clone")
    told = json.loads((tmp_path / "publication" / "publication.json").read_text())
    digest = told["dvc_md5"]
    assert f"longgrit/files/md5/{digest[:2]}/{digest[2:]}" in keys
    assert (pulled / "train" / "00000.tar").read_bytes() == b"shard" * 1000
