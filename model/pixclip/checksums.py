"""The checksums of a checkpoint folder: written last, checked before anything is used."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pixclip.files import write_whole
from pixclip.json_files import MAX_FILE_BYTES, parse_json, shown

CHECKSUMS_NAME = "checksums.json"
WEIGHTS_NAME, TEXT_TOWER_NAME = "model.safetensors", "text_tower"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why and what to do."""


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the SHA-256 of files of a folder; from then on it counts as a checkpoint."""
    sums = {name: sha256_of(folder / name) for name in sorted(names)}
    write_whole(folder / CHECKSUMS_NAME, json.dumps(sums, indent=2) + "\n")


def read_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path; every path is inside the folder, links followed.

    Raises:
        CheckpointError: there are none, or one names a file outside the folder.
    """
    try:
        with (folder / CHECKSUMS_NAME).open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint: {CHECKSUMS_NAME} cannot be read ({error}); a folder "
            "without it is incomplete, and weights of other projects are imported, not loaded"
        ) from None
    sums = parse_checksums(content, str(folder))
    root = folder.resolve()
    outside = [name for name in sums if not _resolved(folder / name).is_relative_to(root)]
    if outside:
        raise CheckpointError(
            f"{folder}: {', '.join(outside)} leads out of the folder through a link; "
            "copy the checkpoint with its links followed"
        )
    return sums


def _resolved(path: Path) -> Path:
    """Where a path leads, links followed; nowhere if they lead around."""
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:  # of which the reader tells
        return path.resolve()
    except (OSError, RuntimeError):  # a loop: one of both, as the version of Python has it
        return Path("/")


def weights_digest(folder: Path) -> str:
    """The SHA-256 of a checkpoint's weights, by which reports name the checkpoint.

    Raises:
        CheckpointError: the folder is no checkpoint, or its checksums list no weights.
    """
    sums = read_checksums(folder)
    if WEIGHTS_NAME not in sums:
        raise CheckpointError(f"{folder}: {CHECKSUMS_NAME} does not list {WEIGHTS_NAME}")
    return sums[WEIGHTS_NAME]


def parse_checksums(content: bytes, where: str) -> dict[str, str]:
    """The content of a checksum file.

    Raises:
        CheckpointError: it is none, or a path is not plainly relative.
    """
    try:
        sums = parse_json(content)
    except ValueError as error:
        raise CheckpointError(f"{where}: {CHECKSUMS_NAME}: {error}") from None
    if not isinstance(sums, dict):
        raise CheckpointError(f"{where}: {CHECKSUMS_NAME} must map paths to checksums")
    for name, digest in sums.items():
        is_digest = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
        if not is_digest or not _is_plain(name):
            raise CheckpointError(
                f"{where}: {CHECKSUMS_NAME} holds {shown(name)}: {shown(digest)}, no SHA-256 of a "
                "file inside the checkpoint; do not use a checkpoint that was tampered with"
            )
    return sums


def verify(folder: Path, sums: Mapping[str, str]) -> None:
    """Compare files with their checksums.

    Raises:
        CheckpointError: lists the files that are missing or altered.
    """
    problems = []
    for name, digest in sums.items():
        try:
            if not (folder / name).is_file():
                problems.append(f"{name} is missing")
            elif sha256_of(folder / name) != digest:
                problems.append(f"{name} is damaged or was altered")
        except OSError as error:  # also names longer than any file's
            problems.append(f"{name:.100} cannot be read ({error.strerror})")
    if problems:
        raise CheckpointError(f"{folder}: {'; '.join(problems)}; fetch the checkpoint again")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    is_normal = name == "/".join(parts) and "\\" not in name and "\0" not in name
    return is_normal and bool(parts) and parts[0] != "/" and ".." not in parts
