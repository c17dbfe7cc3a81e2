"""Of a repository that we were only pointed at nothing is obeyed but its remote's address."""

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from components.core.errors import InputError
from components.data.resolve_data.step import ResolveDataSettings, resolve_data
from components.data.resolve_data.versions import bring_version

SHARD = b"shard" * 100
CONFIG = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../storage\n"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Eve", "-c", "user.email=eve@example.org", *arguments]
    command[1:1] = ["-c", "protocol.file.allow=always"]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def keep(storage: Path, body: bytes, suffix: str = "") -> str:
    digest = md5(body)
    path = storage / "files" / "md5" / digest[:2] / f"{digest[2:]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return f"{digest}{suffix}"


class Hostile:
    """A repository and a storage that somebody made by hand, without DVC."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.storage = root, root / "repository", root / "storage"
        self.folder.mkdir()
        git(self.folder, "init", "--quiet", "--initial-branch", "main")
        self.marker = root / "somebody-was-here"

    def point(self, digest: str, **more: object) -> None:
        out = {"md5": digest, "size": 5, "nfiles": 1, "hash": "md5", "path": "longgrit", **more}
        (self.folder / "longgrit.dvc").write_text(json.dumps({"outs": [out]}))

    def keep_listing(self, entries: object) -> str:
        body = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        return keep(self.storage, body, ".dir")

    def commit(self, config: str = CONFIG) -> None:
        (self.folder / ".dvc").mkdir(exist_ok=True)
        (self.folder / ".dvc" / "config").write_text(config)
        git(self.folder, "add", "--all", "--force")
        git(self.folder, "commit", "--quiet", "-m", "hostile")

    def bring(self) -> Path:
        target = self.root / "brought"
        bring_version(str(self.folder), "HEAD", "longgrit", target, "")
        return target


@pytest.fixture
def hostile(tmp_path) -> Hostile:
    made = Hostile(tmp_path)
    shard = keep(made.storage, SHARD)
    made.point(made.keep_listing([{"md5": shard, "relpath": "train/00000.tar"}]))
    return made


@pytest.fixture
def listener(monkeypatch) -> Iterator[SimpleNamespace]:
    """A server that notes who asks it, and credentials that would be used there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which remembers other credentials
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', '')}")
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
        server.shutdown()


def test_a_repository_made_by_hand_is_read(hostile):
    hostile.commit()
    assert (hostile.bring() / "train" / "00000.tar").read_bytes() == SHARD


def test_a_data_set_in_git_itself_is_refused_with_what_to_do(hostile):
    (hostile.folder / "longgrit.dvc").unlink()
    (hostile.folder / "longgrit").mkdir()
    (hostile.folder / "longgrit" / "manifest.parquet").write_bytes(b"rows")
    hostile.commit()
    with pytest.raises(InputError, match=r"in Git itself, not under DVC: .*resolve_data\.uri"):
        hostile.bring()


ENDPOINTS = {
    "the remote's endpoint": "['remote \"storage\"']\nurl = s3://data/x\nendpointurl = {url}\n",
    "another section first": (
        "[core]\nremote = b\n['remote \"a\"']\nurl = /tmp\n"
        "['remote \"b\"']\nurl = s3://data/x\nEndpointURL = {url}\nuse_ssl = false\n"
    ),
    "a quoted one": '[\'remote "storage"\']\nurl = s3://data/x\nendpointurl = "{url}" # x\n',
    "http itself": "['remote \"storage\"']\nurl = {url}/x\nauth = basic\nuser = u\npassword = p\n",
    "by a profile": (
        "['remote \"storage\"']\nurl = s3://data/x\nendpointurl = {url}\n"
        "credentialpath = ../credentials\nconfigpath = ../aws\nprofile = eve\n"
    ),
}


@pytest.mark.parametrize("config", ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_no_request_goes_to_a_server_that_the_repository_names(hostile, listener, config):
    (hostile.folder / "aws").write_text(f"[profile eve]\nendpoint_url = {listener.url}\n")
    hostile.commit(config.replace("{url}", listener.url))
    with pytest.raises(InputError, match=r"(does not decide where|no other is asked)"):
        hostile.bring()
    assert listener.asked == []


def test_our_own_endpoint_wins_over_the_repositorys(hostile, listener):
    other = "http://192.0.2.1:9"
    hostile.commit(f"['remote \"storage\"']\nurl = s3://data/x\nendpointurl = {other}\n")
    with pytest.raises(InputError, match="is not to be had"):
        bring_version(
            str(hostile.folder), "HEAD", "longgrit", hostile.root / "brought", listener.url
        )
    assert listener.asked
    assert all("AKIAOURS" in asked for asked in listener.asked)


REMOTES = ["ssh://eve.example/x", "gs://x/y", "azure://x", "hdfs://x", "webdav://x", "remote://a/b"]


@pytest.mark.parametrize("url", REMOTES)
def test_other_kinds_of_remotes_are_told(hostile, url):
    hostile.commit(f"['remote \"storage\"']\nurl = {url}\n")
    with pytest.raises(InputError, match=r"neither a folder nor s3://.*`dvc get`"):
        hostile.bring()


def test_the_local_configuration_and_cache_of_the_repository_are_not_obeyed(hostile, listener):
    hostile.commit()
    elsewhere = hostile.root / "elsewhere"
    (hostile.folder / ".dvc" / "config.local").write_text(
        f"[core]\nsite_cache_dir = {elsewhere}\nremote = eve\n[cache]\ndir = {elsewhere}\n"
        f"['remote \"eve\"']\nurl = s3://x/y\nendpointurl = {listener.url}\n"
        f"['remote \"storage\"']\nurl = {listener.url}\n"
    )
    assert (hostile.bring() / "train" / "00000.tar").exists()
    assert listener.asked == []
    assert not elsewhere.exists()


def test_nothing_that_git_could_run_is_run(hostile):
    run = f"touch {hostile.marker}"
    script = hostile.root / "script"
    script.write_text(f"#!/bin/sh\n{run}\n")
    script.chmod(0o755)
    (hostile.folder / ".gitattributes").write_text("* filter=eve diff=eve\n")
    (hostile.folder / ".dvcignore").write_text("*\n")
    (hostile.folder / "dvc.yaml").write_text(f"stages: {{a: {{cmd: {run}, outs: [longgrit]}}}}\n")
    for name in ("dvc.py", "yaml.py", "json.py", "sitecustomize.py"):
        (hostile.folder / name).write_text(f"import os; os.system('{run}')\n")
    hostile.commit()
    for key in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass",
        "filter.eve.smudge", "filter.eve.process", "filter.eve.clean", "diff.eve.textconv",
        "diff.external", "uploadpack.packObjectsHook", "core.gitProxy", "credential.helper",
        "core.alternateRefsCommand", "gpg.program",
    ):  # fmt: skip
        git(hostile.folder, "config", key, str(script))
    hooks = hostile.folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-auto-gc", "reference-transaction", "post-index-change",
                 "post-upload-pack", "pre-receive", "fsmonitor-watchman"):  # fmt: skip
        (hooks / name).write_bytes(script.read_bytes())
        (hooks / name).chmod(0o755)
    hostile.marker.unlink(missing_ok=True)  # our own commands above may have run some
    hostile.bring()
    assert not hostile.marker.exists()


def test_a_remote_helper_as_submodule_or_promisor_is_not_asked(hostile):
    (hostile.folder / ".gitmodules").write_text(
        f'[submodule "x"]\npath = x\nurl = ext::touch {hostile.marker}\n'
    )
    hostile.commit()
    git(hostile.folder, "config", "core.repositoryformatversion", "1")
    git(hostile.folder, "config", "extensions.partialClone", "origin")
    git(hostile.folder, "config", "remote.origin.promisor", "true")
    git(hostile.folder, "config", "remote.origin.url", f"ext::touch {hostile.marker}")
    blob = git(hostile.folder, "rev-parse", "HEAD:longgrit.dvc")
    (hostile.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(InputError, match="the version cannot be brought"):
        hostile.bring()
    assert not hostile.marker.exists()


@pytest.mark.parametrize("name", ["longgrit.dvc", ".dvc/config"])
def test_links_in_the_version_are_not_followed(hostile, name):
    secret = hostile.root / "secret"
    secret.write_text("token")
    hostile.commit()
    path = hostile.folder / name
    path.unlink()
    path.symlink_to(secret)
    git(hostile.folder, "add", "--all")
    git(hostile.folder, "commit", "--quiet", "-m", "a link")
    with pytest.raises(InputError) as refused:
        hostile.bring()
    assert "token" not in str(refused.value)


NESTED = "[" * 20_000
POINTERS = {
    "nothing": "",
    "text": "longgrit",
    "binary": "\0\x01",
    "list": "[]",
    "no outs": "a: 1",
    "outs null": "outs:",
    "outs numbers": "outs: [1, 2]",
    "nested": NESTED,
    "aliases": "a: &a [x]\nb: &b [*a,*a]\nouts: [*b,*b]",
    "bad date": "outs: [{path: longgrit, md5: 2020-99-99}]",
    "another path": "outs: [{path: ../../etc, md5: %s.dir, hash: md5}]" % ("0" * 32),
    "two outs": "outs: [{path: longgrit}, {path: longgrit}]",
    "a file": "outs: [{path: longgrit, md5: %s, hash: md5}]" % ("0" * 32),
    "no hex": "outs: [{path: longgrit, md5: ../../../../etc/passwd.dir, hash: md5}]",
    "dvc 2": "outs: [{path: longgrit, md5: %s.dir}]" % ("0" * 32),
    "sha": "outs: [{path: longgrit, sha256: x, hash: sha256}]",
    "size": "outs: [{path: longgrit, md5: %s.dir, hash: md5, size: a lot}]" % ("0" * 32),
    "python": "!!python/object/apply:os.system ['touch here']",
    "large": "#" * (1 << 17),
}


@pytest.mark.parametrize("text", POINTERS.values(), ids=POINTERS.keys())
def test_a_pointer_that_is_none_is_refused_by_name(hostile, text):
    (hostile.folder / "longgrit.dvc").write_text(text)
    hostile.commit()
    with pytest.raises(InputError, match=r"longgrit\.dvc"):
        hostile.bring()


LISTINGS = {
    "no json": b"{",
    "nested": NESTED.encode(),
    "number": b"1",
    "digits": b"[" + b"9" * 5000 + b"]",
    "mapping": {"relpath": "x"},
    "no digest": [{"relpath": "x"}],
    "digest of another kind": [{"relpath": "x", "md5": 1}],
    "digest as a path": [{"relpath": "x", "md5": "../../../../secret"}],
    "above": [{"relpath": "../x", "md5": "0" * 32}],
    "far above": [{"relpath": "a/../../x", "md5": "0" * 32}],
    "absolute": [{"relpath": "/tmp/x", "md5": "0" * 32}],
    "empty": [{"relpath": "", "md5": "0" * 32}],
    "dot": [{"relpath": ".", "md5": "0" * 32}],
    "nul": [{"relpath": "a\0b", "md5": "0" * 32}],
    "long": [{"relpath": "a" * 300, "md5": "0" * 32}],
    "surrogate": [{"relpath": "\ud800", "md5": "0" * 32}],
    "number as name": [{"relpath": 7, "md5": "0" * 32}],
    "our work": [{"relpath": "_work/objects/x", "md5": "0" * 32}],
    "file and folder": [
        {"relpath": "a", "md5": "0" * 32},
        {"relpath": "a/b", "md5": "0" * 32},
    ],
}


@pytest.mark.parametrize("entries", LISTINGS.values(), ids=LISTINGS.keys())
def test_a_hostile_listing_is_refused_before_anything_is_written(hostile, entries):
    hostile.point(hostile.keep_listing(entries))
    hostile.commit()
    before = {path for path in hostile.root.rglob("*") if "brought" not in path.parts}
    with pytest.raises(InputError, match=r"the listing files/md5"):
        hostile.bring()
    after = {path for path in hostile.root.rglob("*") if "brought" not in path.parts}
    assert {path for path in after - before if ".git" not in path.parts} == set()
    assert os.listdir(hostile.root / "brought") == ["_work"]


CONFIGS = ["", "[core", "[core]\nremote = x\n", "['remote \"storage\"']\n", "\0", "[a]\n" * 20_000,
           "[[[x]]]\n", "url = x\n", "['remote \"storage\"']\nurl =\n"]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_configuration_without_an_address_is_told(hostile, config):
    hostile.commit(config)
    with pytest.raises(InputError, match=r"\.dvc/config"):
        hostile.bring()


def test_a_version_without_any_configuration_is_told(hostile):
    hostile.commit()
    git(hostile.folder, "rm", "--quiet", ".dvc/config")
    git(hostile.folder, "commit", "--quiet", "-m", "gone")
    with pytest.raises(InputError, match=r"has no \.dvc/config"):
        hostile.bring()


def test_a_remote_that_is_a_device_or_pipe_hangs_nobody(hostile):
    digest = keep(hostile.storage, SHARD)
    path = hostile.storage / "files" / "md5" / digest[:2] / digest[2:]
    path.unlink()
    os.mkfifo(path)
    hostile.commit()
    with pytest.raises(InputError, match=r"train/00000\.tar is not to be had"):
        hostile.bring()


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode", "a:b", "-dash", "a#b", "100%", "it's", "a\nb"]
)
def test_a_repository_may_lie_in_any_folder(hostile, name, monkeypatch):
    hostile.commit()
    moved = hostile.root / name
    moved.mkdir()
    hostile.folder.rename(moved / "repository")
    hostile.storage.rename(moved / "storage")
    settings = ResolveDataSettings(repository=str(moved / "repository"))
    with pytest.raises(InputError, match="holds no data set"):  # it was brought, and is none
        resolve_data.function(hostile.root / "brought", settings=settings)
    monkeypatch.chdir(moved)
    for relative in ("repository", "./repository", f"../{name}/repository"):
        target = hostile.root / "again" / str(len(relative))
        bring_version(relative, "main", "longgrit", target, "")


def test_a_bare_repository_an_address_and_a_shallow_one_are_read(hostile):
    hostile.commit()
    hostile.commit("# another\n" + CONFIG)
    git(hostile.root, "clone", "--quiet", "--bare", "repository", "bare.git")
    first = git(hostile.folder, "rev-parse", "HEAD~1")
    shallow = f"file://{hostile.folder}"
    git(hostile.root, "clone", "--quiet", "--depth=1", shallow, "shallow")
    for number, (repository, revision) in enumerate(
        [
            (str(hostile.root / "bare.git"), first),
            (shallow, first),
            (str(hostile.root / "shallow"), "main"),
        ]
    ):
        target = hostile.root / f"brought{number}"
        bring_version(repository, revision, "longgrit", target, "")
        assert (target / "train" / "00000.tar").read_bytes() == SHARD
    with pytest.raises(InputError, match=r"(has no commit|cannot be brought)"):
        bring_version(str(hostile.root / "shallow"), first, "longgrit", hostile.root / "x", "")


def test_a_commit_that_no_branch_holds_any_more_and_none_at_all_are_told(hostile):
    hostile.commit()
    for commit in ("0" * 40, git(hostile.folder, "rev-parse", "HEAD:longgrit.dvc")):
        with pytest.raises(InputError, match=r"(has no commit|cannot be brought)"):
            bring_version(str(hostile.folder), commit, "longgrit", hostile.root / "x", "")


def test_variables_of_the_environment_turn_to_no_other_repository(hostile, tmp_path, monkeypatch):
    hostile.commit()
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    before = sorted(other.rglob("*"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(other / ".git"))
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    hostile.bring()
    assert sorted(other.rglob("*")) == before
