"""Publishing looks at repository, cache and remote: what stands is left, the rest is mended."""

import json
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.config import Config

from components.core.digests import file_digests
from components.core.dvc_repository import RemoteAddress, parse_remote
from components.core.errors import InputError, PipelineError
from components.data.publish.history import History
from components.data.publish.repository import DataRepository
from components.data.publish.step import PublishSettings, publish
from components.data.publish.storage import NEW_CONFIG, PublishError, Remote, configured
from components.data.resolve_data.versions import bring_version
from tests.data_repository import REMOTE, SHARD, copied, object_of, publish_data, write_data
from tests.receipts import write_receipt


@pytest.fixture(autouse=True)
def no_identity(tmp_path, monkeypatch):
    """A machine on which Git knows no user."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("template")
    files = {"train/00000.tar": SHARD, "manifest.parquet": b"rows", "report.html": b"a report"}
    write_data(root, files)
    publish_data(root)
    return root


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path)


def again(root: Path) -> dict[str, object]:
    """Publish the data set into the repository, and bring it out of the storage alone."""
    repository = DataRepository(root / "repository", REMOTE)
    version = repository.publish(root / "longgrit", "longgrit", "Publish")
    shutil.rmtree(root / "clone", ignore_errors=True)
    clone = ["git", "clone", "--quiet", str(root / "repository"), str(root / "clone")]
    subprocess.run(clone, check=True, cwd=root)
    shutil.rmtree(root / "brought", ignore_errors=True)
    commit = version.git_commit
    bring_version(str(root / "clone"), commit, "longgrit", root / "brought", "")
    assert (root / "brought" / "train" / "00000.tar").read_bytes() == (
        root / "longgrit" / "train" / "00000.tar"
    ).read_bytes()
    return vars(version)


def state(*folders: Path) -> dict[str, tuple[float, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_where_everything_stands_nothing_is_run_or_changed_and_it_is_said(
    root, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    before = state(root / "repository", root / "storage")
    monkeypatch.setattr(DataRepository, "_dvc", None)
    repository = DataRepository(root / "repository", REMOTE)
    version = repository.publish(root / "longgrit", "longgrit", "Publish")
    assert not version.is_new
    assert (version.ref, version.num_files) == ("refs/heads/main", 3)
    assert "holds this version of longgrit already" in caplog.text
    assert state(root / "repository", root / "storage") == before


def forget(path: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / path)


def damage_cache(root: Path) -> None:
    """As root edits a file in place: times and modes say nothing."""
    path = object_of(root / "repository" / ".dvc" / "cache")
    path.chmod(0o644)
    path.write_bytes(SHARD[:-1] + b"x")


def cut_storage(root: Path) -> None:
    path = object_of(root / "storage")
    path.chmod(0o644)
    path.write_bytes(SHARD[:10])


def lose_object(root: Path) -> None:
    object_of(root / "storage").unlink()


def lose_listing(root: Path) -> None:
    (path,) = (root / "storage").rglob("*.dir")
    path.unlink()


def cut_pointer(root: Path) -> None:
    (root / "repository" / "longgrit.dvc").write_text("outs:\n- md5: c1005b1b")


def lose_pointer(root: Path) -> None:
    (root / "repository" / "longgrit.dvc").unlink()


def lose_commit(root: Path) -> None:
    """As if DVC had been killed after `dvc push`."""
    git = root / "repository" / ".git"
    for name in ("refs/heads/main", "index"):
        (git / name).unlink()


def empty_config(root: Path) -> None:
    (root / "repository" / ".dvc" / "config").write_text("")


@pytest.mark.parametrize(
    "harm",
    [
        forget("repository"), forget("storage"), forget("repository/.dvc/cache"),
        forget("repository/.git"), forget("repository/.dvc"), damage_cache, cut_storage,
        lose_object, lose_listing, cut_pointer, lose_pointer, lose_commit, empty_config,
    ],
    ids=lambda harm: harm.__name__,
)  # fmt: skip
def test_what_is_missing_or_damaged_is_made_again(root, harm):
    harm(root)
    again(root)
    repository = DataRepository(root / "repository", REMOTE)
    assert not repository.publish(root / "longgrit", "longgrit", "Publish").is_new


def test_an_edit_of_the_runs_folder_in_place_reaches_no_version(root):
    shard = root / "longgrit" / "train" / "00000.tar"
    with shard.open("r+b") as file:
        file.write(b"edited")
    bring_version(str(root / "repository"), "HEAD", "longgrit", root / "brought", "")
    assert (root / "brought" / "train" / "00000.tar").read_bytes() == SHARD


def test_the_published_files_are_copies_and_the_runs_keep_their_modes(root, tmp_path):
    shutil.rmtree(root / "repository")
    shard = root / "longgrit" / "train" / "00000.tar"
    shard.chmod(0o600)
    old = os.umask(0o027)
    try:
        again(root)
    finally:
        os.umask(old)
    assert (shard.stat().st_nlink, stat.S_IMODE(shard.stat().st_mode)) == (1, 0o600)
    kept = root / "repository" / "longgrit" / "train" / "00000.tar"
    assert stat.S_IMODE(kept.stat().st_mode) & 0o007 == 0 or kept.stat().st_nlink > 1
    brought = root / "brought" / "train" / "00000.tar"
    assert stat.S_IMODE(brought.stat().st_mode) in (0o640, 0o644)


@pytest.mark.parametrize("name", ["longgrit", "animals"])
def test_a_folder_that_nobody_keeps_is_not_replaced(root, name):
    repository = root / "repository"
    if name == "longgrit":
        (repository / ".git" / "index").unlink()
        (repository / ".git" / "refs" / "heads" / "main").unlink()
        (repository / "longgrit.dvc").unlink()
    else:
        (repository / name).mkdir()
        (repository / name / "mine.txt").write_text("mine")
    before = state(repository / name)
    with pytest.raises(
        PublishError, match=r"is there already and is not under DVC; choose another"
    ):
        DataRepository(repository, REMOTE).publish(root / "longgrit", name, "Publish")
    assert state(repository / name) == before


@pytest.mark.parametrize("edit", ["added", "changed"])
def test_what_somebody_wrote_into_the_repositorys_folder_is_not_lost(root, edit):
    target = root / "repository" / "longgrit"
    if edit == "added":
        (target / "notes.txt").write_text("mine")
    else:
        (target / "report.html").chmod(0o644)
        (target / "report.html").unlink()
        (target / "report.html").write_text("mine")
    (root / "longgrit" / "card.md").write_text("more")
    with pytest.raises(PublishError, match=r"was edited or added by hand and is in no version"):
        again(root)
    assert "mine" in {path.read_text() for path in target.iterdir() if path.is_file()}


def test_a_publication_that_was_killed_after_it_placed_the_files_goes_on(root, monkeypatch):
    (root / "longgrit" / "card.md").write_text("more")
    repository = DataRepository(root / "repository", REMOTE)
    with monkeypatch.context() as patch:
        patch.setattr(DataRepository, "_dvc", None)  # dies where DVC would come
        with pytest.raises(TypeError):
            repository.publish(root / "longgrit", "longgrit", "Publish")
    assert (root / "repository" / "longgrit" / "card.md").exists()
    assert again(root)["is_new"]


def test_a_repository_that_was_made_holds_nothing_uncommitted(root):
    shutil.rmtree(root / "repository")
    again(root)
    assert status(root) == ""


def status(root: Path) -> str:
    command = ["git", "status", "--porcelain"]
    return subprocess.run(
        command, cwd=root / "repository", check=True, capture_output=True, text=True
    ).stdout


def test_a_publication_that_was_killed_after_its_commit_is_finished(root, monkeypatch):
    (root / "longgrit" / "card.md").write_text("more")
    repository = DataRepository(root / "repository", REMOTE)
    with monkeypatch.context() as patch:
        patch.setattr(History, "follow", None)  # dies where the user's index would come
        with pytest.raises(TypeError):
            repository.publish(root / "longgrit", "longgrit", "Publish")
    assert "longgrit.dvc" in status(root)
    assert not again(root)["is_new"], "it was committed"
    assert status(root) == ""


def test_a_dvcignore_that_would_leave_files_out_is_told(root):
    (root / "repository" / ".dvcignore").write_text("*.tar\n")
    (root / "longgrit" / "card.md").write_text("more")
    with pytest.raises(PublishError, match=r"differs from what was given.*\.dvcignore"):
        again(root)


@pytest.mark.parametrize("key", ["url", "endpointurl"])
def test_a_local_configuration_does_not_send_the_data_elsewhere(root, key):
    (root / "longgrit" / "card.md").write_text("more")
    local = root / "repository" / ".dvc" / "config.local"
    local.write_text(f"['remote \"storage\"']\n    {key} = http://elsewhere.example\n")
    with pytest.raises(PublishError, match=rf"config\.local sets the {key} of the remote"):
        again(root)


def test_the_users_own_dvc_configuration_stays_with_its_comments(root):
    config = root / "repository" / ".dvc" / "config"
    text = "# mine\n[core]\n    autostage = true\n['remote \"other\"']\n    url = /mine # too\n"
    config.write_text(text)
    (root / "longgrit" / "card.md").write_text("more")
    again(root)
    now = config.read_text()
    assert "# mine" in now
    assert "# too" in now
    assert "autostage = true" in now
    assert "../../storage" in now


@pytest.mark.parametrize(
    "name",
    ["with space", "a #b", "a,b", "ünïcode", "100%", "it's", 'say "a"', "a;b", "a=b", "[a]", " a "],
)
def test_a_remote_may_have_any_name(name, tmp_path):
    url = f"/data/{name}/storage"
    path = tmp_path / "config"
    path.write_text(configured(NEW_CONFIG, Remote(url, "http://s3.example")))
    assert Config.load_file(str(path))["remote"]["storage"]["url"] == url
    assert parse_remote(path.read_bytes()) == RemoteAddress(url, "http://s3.example")
    assert configured(path.read_text(), Remote(url, "http://s3.example")) == path.read_text()


def test_a_remote_with_an_odd_name_is_written_and_read(root):
    remote = root / "a, b #c's ü" / "storage"
    repository = DataRepository(root / "repository", Remote(str(remote)))
    repository.publish(root / "longgrit", "longgrit", "Publish")
    assert object_of(remote)
    bring_version(str(root / "repository"), "HEAD", "longgrit", root / "brought", "")


def test_the_publication_names_full_places_and_a_branch_wherever_it_is_run(root, monkeypatch):
    monkeypatch.chdir(root)
    (root / "here").mkdir()
    monkeypatch.chdir(root / "here")
    settings = PublishSettings(repository="versions", remote="kept")
    publish.function(root / "longgrit", root / "publication", settings=settings)
    told = json.loads((root / "publication" / "publication.json").read_text())
    assert told["repository"] == str(root / "here" / "versions")
    assert told["remote"] == str(root / "here" / "kept")
    assert told["ref"] == "refs/heads/main"
    assert object_of(root / "here" / "kept")


def test_a_version_whose_remote_has_moved_is_named_by_the_commit_that_says_so(root):
    moved = DataRepository(root / "repository", Remote("../../moved"))
    version = moved.publish(root / "longgrit", "longgrit", "Publish")
    shutil.rmtree(root / "storage")
    shutil.rmtree(root / "repository" / ".dvc" / "cache")
    bring_version(str(root / "repository"), version.git_commit, "longgrit", root / "brought", "")
    assert not moved.publish(root / "longgrit", "longgrit", "Publish").is_new


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "receipt"])
def test_a_data_set_that_is_not_what_its_receipt_says_is_not_published(root, damage):
    data = root / "longgrit"
    shard = data / "train" / "00000.tar"
    files = {f"longgrit/{name}": digest for name, digest in file_digests(data).items()}
    receipt = write_receipt(data, "pack", "longgrit", files=files)
    if damage == "changed":
        shard.write_bytes(SHARD[:-1] + b"x")
    elif damage == "missing":
        shard.unlink()
    elif damage == "more":
        shard.with_name("00001.tar").write_bytes(SHARD)
    else:
        (data / "_receipt.json").write_text(receipt.to_json().replace('"pack"', '"pick"'))
    settings = PublishSettings(repository=str(root / "repository"))
    with pytest.raises(InputError, match="and pack again"):
        publish.function(data, root / "publication", settings=settings)


def test_links_that_lead_nowhere_or_in_a_circle_are_told(root):
    (root / "longgrit" / "gone").symlink_to(root / "nowhere")
    with pytest.raises(PipelineError, match="gone is no file that can be read"):
        again(root)
    (root / "longgrit" / "gone").unlink()
    (root / "longgrit" / "round").symlink_to(root / "longgrit")
    with pytest.raises(PipelineError, match="round: this link leads in a circle"):
        again(root)
    (root / "longgrit" / "round").unlink()
    os.mkfifo(root / "longgrit" / "pipe")
    with pytest.raises(PipelineError, match="pipe is no file"):
        again(root)


def test_a_repository_that_cannot_be_made_is_told(root):
    (root / "file").write_text("")
    repository = DataRepository(root / "file" / "repository", REMOTE)
    with pytest.raises(PublishError, match=r"cannot open .*file/repository: Not a directory"):
        repository.publish(root / "longgrit", "longgrit", "Publish")


def test_the_users_gitignore_keeps_its_bytes(root):
    own = "caf\xe9\r\n# mine".encode("latin-1")
    repository = root / "repository"
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-qam", "mine"]
    (repository / ".gitignore").write_bytes(own)
    subprocess.run(command, cwd=repository, check=True)
    (root / "longgrit" / "card.md").write_text("more")
    again(root)
    show = ["git", "show", "HEAD:.gitignore"]
    told = subprocess.run(show, cwd=repository, check=True, capture_output=True).stdout
    assert told == own + b"\n/longgrit\n"


@pytest.mark.parametrize("name", [".dvc/tmp/pixclip-new-longgrit", ".dvc/tmp/pixclip-old-longgrit"])
def test_what_a_killed_attempt_left_is_no_hindrance(root, name):
    (root / "repository" / name / "deep").mkdir(parents=True)
    (root / "longgrit" / "card.md").write_text("more")
    assert again(root)["is_new"]
    assert not (root / "repository" / name).exists()


def test_a_folder_that_cannot_be_written_is_told(root):
    tmp = root / "repository" / ".dvc" / "tmp"
    shutil.rmtree(tmp)
    tmp.write_text("a file")
    (root / "longgrit" / "card.md").write_text("more")
    with pytest.raises(PublishError, match=r"\.dvc/tmp.*: "):
        again(root)


@pytest.mark.parametrize("text", ["[core", "\0", "[a]\n[a]\n"])
def test_a_configuration_that_is_none_is_told(root, text):
    (root / "repository" / ".dvc" / "config").write_text(text)
    (root / "longgrit" / "card.md").write_text("more")
    with pytest.raises(PipelineError, match=r"\.dvc/config"):
        again(root)
