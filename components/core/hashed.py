"""Files that are copied and hashed in one pass, so that what was checked is what was handed on."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath

from components.core.digests import RECEIPT_NAME
from components.core.errors import InputError
from components.core.receipts import CHECKSUM, DATA_ENDINGS, read_receipt
from components.core.step import alike
from components.core.tables import WORK_FOLDER

PIECE_BYTES = 1 << 20
MAX_NAME_BYTES = 255
MAX_SHOWN = 3
NUM_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Digests:
    """What a file holds: `md5` is how DVC names it, `sha256` is in receipts."""

    md5: str
    sha256: str
    num_bytes: int


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a folder by relative name in order, without unfinished work; links are followed.

    Raises:
        InputError: a link leads nowhere or in a circle, or something is neither file nor folder.
    """
    found = dict(sorted(_walk(folder, folder, (folder.resolve(),))))
    return {name: path for name, path in found.items() if name.split("/")[0] != WORK_FOLDER}


def _walk(root: Path, folder: Path, around: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    for path in folder.iterdir():
        name = str(path.relative_to(root))
        if path.is_dir():
            real = path.resolve()
            if real in around:
                raise InputError(f"{path}: this link leads in a circle; remove it")
            yield from _walk(root, path, (*around, real))
        elif path.is_file():
            require_name(name, str(root))
            yield name, path
        else:
            raise InputError(f"{path} is no file that can be read; remove it")


def require_name(name: str, where: str) -> None:
    """Refuse a relative name that cannot be that of a file inside a folder.

    Raises:
        InputError: shows the name.
    """
    try:
        parts = [part.encode() for part in name.split("/")]
    except UnicodeEncodeError:
        raise InputError(f"{where}: the name {name!r} is not UTF-8; rename the file") from None
    is_safe = all(
        part not in (b"", b".", b"..") and b"\0" not in part and len(part) <= MAX_NAME_BYTES
        for part in parts
    )
    if not is_safe:
        raise InputError(f"{where}: {name[:MAX_NAME_BYTES]!r} cannot be the name of a file")


def copy_hashed(source: Path, target: Path | None) -> Digests:
    """Hash a file, and copy it unless there is no target, which must not exist.

    The copy is a file of its own: no link, and with the modes that the umask gives.

    Raises:
        InputError: it cannot be read or written.
    """
    md5, sha256, num_bytes = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with ExitStack() as stack:
            file = stack.enter_context(source.open("rb"))
            copy = None
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                copy = stack.enter_context(target.open("xb"))
            while piece := file.read(PIECE_BYTES):
                md5.update(piece)
                sha256.update(piece)
                num_bytes += len(piece)
                if copy is not None:
                    copy.write(piece)
    except OSError as error:
        raise InputError(
            f"cannot copy {source}: {error.filename or target}: {error.strerror}"
        ) from None
    return Digests(md5.hexdigest(), sha256.hexdigest(), num_bytes)


def copy_all(files: Mapping[str, Path], target: Path | None) -> dict[str, Digests]:
    """Hash files by name, and copy them below a folder unless there is none.

    Raises:
        InputError: one cannot be read or written.
    """
    places = [target / name if target else None for name in files]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(files, pool.map(copy_hashed, files.values(), places), strict=True))


def require_receipt(folder: Path, digests: Mapping[str, str], artifact: str, advice: str) -> None:
    """Compare the sha256 of an artifact's files with its own receipt, if it has one.

    Raises:
        InputError: the receipt is damaged, files are missing or changed, or there are data files
            that it does not name.
    """
    told, maker = _files_of_receipt(folder, artifact, advice)
    if not told:
        return
    wrong = sorted(name for name, digest in told.items() if digests.get(name) != digest)
    if wrong:
        raise InputError(
            f"{len(wrong)} file(s) of {folder} are missing or not as `{maker}` wrote them, e.g. "
            f"{', '.join(wrong[:MAX_SHOWN])}; {advice}"
        )
    more = sorted(
        name for name in digests if name not in told and PurePath(name).suffix in DATA_ENDINGS
    )
    if more:
        raise InputError(
            f"{folder} holds {len(more)} file(s) that `{maker}` did not write, e.g. "
            f"{', '.join(more[:MAX_SHOWN])}; {advice}"
        )


def _files_of_receipt(folder: Path, artifact: str, advice: str) -> tuple[Mapping[str, str], str]:
    """The files of the receipt, also of an older release's, and the step that wrote it."""
    path = folder / RECEIPT_NAME
    if not path.exists():
        return {}, ""
    receipt = read_receipt(folder)
    if receipt:
        return receipt.files_below(f"{receipt.artifact}/"), receipt.step
    try:
        content = json.loads(path.read_bytes())
        if CHECKSUM in content:
            raise ValueError("it does not fit its checksum")
        files = {str(name): str(digest) for name, digest in content["files"].items()}
        parts = [(*name.partition("/"), digest) for name, digest in files.items()]
        named = {file: digest for part, _, file, digest in parts if part in alike(artifact)}
        return named, str(content["step"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path} is damaged; {advice}") from None
