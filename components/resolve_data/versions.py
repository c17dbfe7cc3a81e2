"""A version of a data set under Git and DVC: `git` finds the commit, `dvc get` brings the files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from components.kernel.drafts import remove
from components.kernel.errors import InputError

QUIET = {
    "DVC_NO_ANALYTICS": "true",
    "DVC_STUDIO_OFFLINE": "true",
    "DO_NOT_TRACK": "1",
    "GIT_TERMINAL_PROMPT": "0",
    # Not `ext`, which runs any program that the address names.
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
}
COMMIT = re.compile(r"[0-9a-f]{40}")


def bring_version(repository: str, revision: str, name: str, target: Path) -> dict[str, str]:
    """Bring `name` as of a revision to `target`, and say which version that was.

    Raises:
        InputError: no such repository, revision or data set, or its files cannot be fetched.
    """
    if not repository:
        raise InputError("resolve_data: name a repository, or a uri of a data set outside of DVC")
    commit = find_commit(repository, revision)
    remove(target)  # `dvc get` begins anew
    try:
        _dvc("get", "--rev", commit, "--out", str(target), repository, name)
    except InputError as error:  # of a name that is not there, DVC says only the name
        raise InputError(
            f"{error}; is there a data set '{name}' (publish.name) in {repository} at {revision}?"
        ) from None
    return {
        "repository": repository,
        "revision": revision,
        "git_commit": commit,
        "name": name,
        "dvc_md5": _digest(repository, commit, name),
    }


def find_commit(repository: str, revision: str) -> str:
    """The full commit of a branch, a tag or a commit.

    Raises:
        InputError: the repository cannot be read, or has no such branch or tag.
    """
    if COMMIT.fullmatch(revision):
        return revision
    lines = _run("git", "ls-remote", "--", repository, revision, f"{revision}^{{}}").splitlines()
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


def _digest(repository: str, commit: str, name: str) -> str:
    """DVC's digest of the data set, from its pointer file."""
    import dvc.api

    text = dvc.api.read(f"{name}.dvc", repo=repository, rev=commit)
    return str(yaml.safe_load(text)["outs"][0]["md5"])


def _dvc(*arguments: str) -> str:
    return _run(sys.executable, "-m", "dvc", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **QUIET},
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise InputError(f"the version cannot be brought: {_reason(done.stderr)}")
    return done.stdout


def _reason(told: str) -> str:
    """What Git or DVC said of its failure, without progress bars and offers of help."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return " ".join(errors or lines)
