"""DVC's own files, read without DVC: pointers, listings of folders, and a remote's address.

They may come out of a repository that we were only pointed at, so everything is bounded and
checked, and nothing but addresses and digests is taken from them.
https://dvc.org/doc/user-guide/project-structure
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from components.core.errors import InputError
from components.core.hashed import require_name
from components.core.tables import WORK_FOLDER

MAX_POINTER_BYTES = 1 << 16
MAX_LISTING_BYTES = 1 << 30
FOLDER_MD5 = re.compile(r"[0-9a-f]{32}\.dir")
FILE_MD5 = re.compile(r"[0-9a-f]{32}")
CONFIG_NAME = ".dvc/config"
CACHE = ".dvc/cache"


@dataclass(frozen=True)
class Pointer:
    """What `<name>.dvc` says of a folder: the digest of its listing, and how large it is."""

    md5: str
    num_bytes: int
    num_files: int
    remote: str  # the name of a remote of its own, mostly none


@dataclass(frozen=True)
class RemoteAddress:
    """Where a repository says that its files are."""

    url: str
    endpoint_url: str


def object_name(md5: str) -> str:
    """Where DVC keeps the bytes of a digest, in its cache and in every remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def parse_pointer(content: bytes, name: str) -> Pointer:
    """The pointer to the folder `name`.

    Raises:
        InputError: it is no such pointer, or one of a form that is not read here.
    """
    where = f"{name}.dvc"
    if len(content) > MAX_POINTER_BYTES:
        raise InputError(f"{where} has {len(content)} bytes: it is no pointer file of DVC")
    try:
        outs = yaml.safe_load(content)["outs"]
        (out,) = [out for out in outs if out["path"] == name]
        md5, kind = out.get("md5"), out.get("hash", "")
        numbers = int(out.get("size", 0)), int(out.get("nfiles", 0))
        remote = str(out.get("remote", ""))
    # Its words may be of any type; YAML reads dates and nests as deep as it likes.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{where} is no pointer file of DVC that names `{name}`") from None
    if kind != "md5":
        raise InputError(
            f"{where} was not written by DVC 3 (hash: {str(kind)[:20]!r}); "
            f"run `dvc add {name}` with DVC 3 and commit"
        )
    if not isinstance(md5, str) or not FOLDER_MD5.fullmatch(md5):
        raise InputError(f"{where} names no folder by the digest of its listing (md5: ….dir)")
    return Pointer(md5, *numbers, remote)


def parse_listing(content: bytes, pointer: Pointer) -> dict[str, str]:
    """The files of a folder: relative name -> md5.

    Raises:
        InputError: these are not the bytes that the pointer names, or no listing of safe names.
    """
    where = f"the listing {object_name(pointer.md5)}"
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != pointer.md5[:32]:
        raise InputError(f"{where} is damaged: its bytes have another digest")
    try:
        files = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"{where} is no listing of DVC") from None
    for name, md5 in files.items():
        _require_entry(name, md5, where)
    folders = {"/".join(name.split("/")[:n]) for name in files for n in range(name.count("/") + 1)}
    both = sorted(folders & files.keys())
    if both:
        raise InputError(f"{where} holds {both[0]!r} as a file and as a folder")
    return files


def _require_entry(name: Any, md5: Any, where: str) -> None:
    if not (isinstance(name, str) and isinstance(md5, str) and FILE_MD5.fullmatch(md5)):
        raise InputError(f"{where} is no listing of DVC")
    require_name(name, where)
    if name.split("/")[0] == WORK_FOLDER:
        raise InputError(f"{where} holds {name!r}: unfinished work, which is no part of a data set")


def parse_config(content: bytes) -> dict[str, dict[str, str]]:
    """The sections of a DVC configuration, e.g. `remote "storage"`; sections inside them are not.

    Raises:
        InputError: it is no such configuration.
    """
    from configobj import ConfigObj, ConfigObjError  # with which DVC reads and writes it

    try:
        lines = content.decode("utf-8-sig").splitlines()
        if len(content) > MAX_POINTER_BYTES:
            raise ValueError("too large")
        config = ConfigObj(lines, interpolation=False).dict()
    except (ConfigObjError, ValueError, RecursionError) as error:
        raise InputError(f"{CONFIG_NAME} is no configuration of DVC: {error}") from None
    return {
        section: {
            key.lower(): ",".join(text) if isinstance(text, list) else str(text)
            for key, text in values.items()
        }
        for section, values in config.items()
        if isinstance(values, dict)
    }


def parse_remote(content: bytes, name: str = "") -> RemoteAddress:
    """The address of a remote, or of the default one; no other configuration is looked at.

    Raises:
        InputError: there is no such remote, or it has no address.
    """
    sections = parse_config(content)
    remotes = {
        section.removeprefix("remote ").strip('"'): values
        for section, values in sections.items()
        if section.startswith("remote ")
    }
    name = name or sections.get("core", {}).get("remote", "")
    if not name and len(remotes) == 1:
        (name,) = remotes
    values = remotes.get(name, {})
    if not values.get("url"):
        raise InputError(
            f"{CONFIG_NAME} gives no address of a remote{f' {name!r}' if name else ''}; "
            "set one by `dvc remote add --default`, `dvc push`, and commit"
        )
    return RemoteAddress(values["url"], values.get("endpointurl", ""))
