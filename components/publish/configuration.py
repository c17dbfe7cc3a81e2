"""DVC's configuration of a data repository: our remote in it, and nothing else of it touched."""

from pathlib import Path

from components.kernel.dvc import CONFIG_NAME, parse_config, parse_remote
from components.kernel.errors import InputError
from components.publish.storage import PublishError, Remote

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


def read_text(path: Path) -> str:
    """A text whose bytes `to_bytes` gives again, UTF-8 or not."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes of a text of `read_text` or of Git."""
    return text.encode("utf-8", "surrogateescape")
