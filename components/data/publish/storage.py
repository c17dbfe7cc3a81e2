"""The remote, looked at without DVC, and DVC's configuration of it.

DVC takes the listing of a folder in a remote for a sign that all its files are there, and does not
push them again: what somebody removed or cut off since is put back here.
"""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.core.dvc_objects import Objects, open_objects
from components.core.dvc_repository import (
    CONFIG_NAME,
    object_name,
    parse_config,
    parse_remote,
    to_bytes,
)
from components.core.errors import InputError, PipelineError

log = logging.getLogger(__name__)

NUM_THREADS = 8


class PublishError(PipelineError):
    """Git, DVC or a remote refused; the message holds what it said."""


@dataclass(frozen=True)
class Remote:
    """Where DVC pushes: a folder, or `s3://bucket/prefix` (credentials by AWS's own variables)."""

    url: str
    endpoint_url: str = ""


def open_store(remote: Remote, folder: Path) -> Objects | None:
    """The remote of the repository at a folder; None if it is of a kind that DVC alone knows."""
    return open_objects(remote.url, remote.endpoint_url, folder / ".dvc")


def full_address(remote: Remote, folder: Path) -> str:
    """Where a remote is: an address, or a folder by its full path; DVC's are relative to `.dvc`."""
    url = remote.url
    return url if "://" in url else os.path.normpath(folder / ".dvc" / url)


def look(store: Objects | None, sizes: Mapping[str, int]) -> dict[str, bool | None]:
    """Whether each object is there in its full size; None where that cannot be seen."""
    if store is None:
        return dict.fromkeys(sizes)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(sizes, pool.map(store.has, sizes.keys(), sizes.values()), strict=True))


def put_back(store: Objects | None, cache: Path, sizes: Mapping[str, int]) -> None:
    """Write the objects that DVC took to be there and that are not.

    Raises:
        PublishError: one cannot be written.
    """
    for md5, is_there in look(store, sizes).items():
        if store is not None and is_there is False:
            log.warning("%s was missing or cut off in the remote: put back", object_name(md5))
            try:
                store.put(md5, cache / object_name(md5))
            except InputError as error:
                raise PublishError(str(error)) from None


REMOTE = "storage"
SECTION = f'remote "{REMOTE}"'
LOCAL_CONFIG = f"{CONFIG_NAME}.local"
# Of a repository that is made here. Its folder and cache are links of each other.
NEW_CONFIG = f"""[core]
analytics = false
check_update = false
remote = {REMOTE}

[cache]
type = "hardlink,reflink,copy"
"""


def is_configured(text: str, remote: Remote) -> bool:
    """Whether a configuration names our remote, and a default one."""
    try:
        found = parse_remote(to_bytes(text), REMOTE)
        has_default = bool(parse_config(to_bytes(text)).get("core", {}).get("remote"))
    except InputError:
        return False
    return has_default and (found.url, found.endpoint_url) == (remote.url, remote.endpoint_url)


def configured(text: str, remote: Remote) -> str:
    """A configuration whose remote is ours; everything else in it stays, comments too.

    Raises:
        PublishError: it cannot be read, or the remote cannot be written in it.
    """
    from configobj import ConfigObj, ConfigObjError  # with which DVC reads and writes it

    if is_configured(text, remote):
        return text
    section = {"url": remote.url}
    if remote.endpoint_url:
        section["endpointurl"] = remote.endpoint_url
    try:
        config = ConfigObj(text.splitlines(), interpolation=False)
        config.setdefault("core", {}).setdefault("remote", REMOTE)
        config[SECTION] = section
        return "\n".join(config.write()) + "\n"
    except ConfigObjError as error:
        raise PublishError(f"{CONFIG_NAME} cannot be read or written: {error}") from None
