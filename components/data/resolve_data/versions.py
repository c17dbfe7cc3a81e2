"""A version of a data set under Git and DVC, taken from a repository that we were only pointed at.

Of such a repository nothing is obeyed and nothing is run. Git fetches the one commit into a bare
repository of our own: no checkout, so no filters, hooks, submodules or links. Two files are read
there, as bytes: `<name>.dvc`, which names the folder by its digest, and `.dvc/config`, of which
only the addresses of remotes are taken. Neither `config.local` nor cache folders, credential files
or endpoints that it names count, and DVC itself is not run.

Every file is then copied, never linked, out of the repository's cache beside it or out of its
remote, and is taken only if it has the digest that the commit names.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from components.core.drafts import remove
from components.core.dvc_repository import (
    CONFIG_NAME,
    MAX_LISTING_BYTES,
    CommandError,
    entries_at,
    parse_listing,
    parse_pointer,
    parse_remote,
    read_at,
    run_command,
    to_bytes,
)
from components.core.errors import InputError
from components.core.tables import WORK_FOLDER
from components.data.resolve_data.storage import bring_files, fetch_object, open_storages

COMMIT = re.compile(r"[0-9a-f]{40}")
# Not `ext`, which runs any program that the address names.
CAREFUL = {
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
GIT = ("git", "-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60", "-c", "gc.auto=0")


def bring_version(
    repository: str, revision: str, name: str, target: Path, endpoint_url: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Bring `name` as of a revision to `target`; which version that was, and sha256 by file.

    Raises:
        InputError: no such repository, revision or data set, or its files are not to be had whole.
    """
    if not repository:
        raise InputError("resolve_data: name a repository, or a uri of a data set outside of DVC")
    commit = find_commit(repository, revision)
    work = target / WORK_FOLDER
    history = _fetch_commit(repository, commit, work / "history.git")
    where = f"{repository} at {revision}"
    pointer = parse_pointer(_read_pointer(history, commit, name, where), name)
    config = _read(history, commit, CONFIG_NAME)
    if config is None:
        raise InputError(f"{where} has no {CONFIG_NAME}, which says where DVC keeps the files")
    remote = parse_remote(config, pointer.remote)
    storages = open_storages(_local_folder(repository), remote, endpoint_url)
    listing, _ = fetch_object(storages, pointer.md5, f"the listing of '{name}'", work)
    if listing.stat().st_size > MAX_LISTING_BYTES:
        raise InputError(f"the listing of '{name}' in {where} is too large to be one")
    files = parse_listing(listing.read_bytes(), pointer)
    digests = bring_files(storages, files, target, pointer.num_bytes)
    version = {
        "repository": repository,
        "revision": revision,
        "git_commit": commit,
        "name": name,
        "dvc_md5": pointer.md5,
    }
    return version, digests


def find_commit(repository: str, revision: str) -> str:
    """The full commit of a branch, a tag or a commit.

    Raises:
        InputError: the repository cannot be read, or has no such branch or tag.
    """
    if COMMIT.fullmatch(revision):
        return revision
    refs = ("--", _address(repository), revision, f"{revision}^{{}}")
    lines = _git("ls-remote", *refs, folder=Path.cwd()).splitlines()
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in lines)}
    for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}"):
        if ref in found:
            return found[ref]
    if f"refs/tags/{revision}" in found:
        return found[f"refs/tags/{revision}"]
    raise InputError(
        f"{repository} has no branch or tag '{revision}'; "
        "a commit must be given with all its 40 digits"
    )


def _fetch_commit(repository: str, commit: str, folder: Path) -> Path:
    """A bare repository of our own that holds the commit."""
    remove(folder)
    folder.mkdir(parents=True)
    _git("init", "--quiet", "--bare", "--template=", str(folder), folder=folder)
    fetch = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
    try:
        _git(*fetch, "--depth=1", "--", _address(repository), commit, folder=folder)
    except InputError:  # a server that gives no single commits: all of it
        everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        _git(*fetch, "--", _address(repository), *everything, folder=folder)
    try:
        _git("cat-file", "-e", f"{commit}^{{commit}}", folder=folder)
    except InputError:
        raise InputError(f"{repository} has no commit {commit} on a branch or tag") from None
    return folder


def _read_pointer(history: Path, commit: str, name: str, where: str) -> bytes:
    content = _read(history, commit, f"{name}.dvc")
    if content is not None:
        return content
    if entries_at(partial(_git, folder=history), commit, [name]):
        raise InputError(
            f"{where} keeps '{name}' in Git itself, not under DVC: clone the repository, check the "
            f"revision out, and name the folder by resolve_data.uri"
        )
    raise InputError(
        f"the version cannot be brought: is there a data set '{name}' (publish.name) in {where}? "
        f"It has no file {name}.dvc"
    )


def _read(history: Path, commit: str, path: str) -> bytes | None:
    """The bytes of a file of the commit; None if there is none, or if it is a link or a folder."""
    text = read_at(partial(_git, folder=history), commit, path)
    return None if text is None else to_bytes(text)


def _address(repository: str) -> str:
    """What Git is given: a folder by its full path, which no colon in it turns into a host."""
    folder = _local_folder(repository)
    return str(folder) if folder else repository


def _local_folder(repository: str) -> Path | None:
    path = Path(repository.removeprefix("file://"))
    return path.absolute() if path.is_dir() else None


def _git(*arguments: str, folder: Path) -> str:
    more: Mapping[str, str] = {**CAREFUL, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    try:
        return run_command((*GIT, *arguments), folder, more)
    except CommandError as error:
        raise InputError(f"the version cannot be brought: {error.told or error}") from None
