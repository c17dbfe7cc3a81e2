"""`SHA256SUMS` of a folder, in the form that `sha256sum --check` reads."""

from collections.abc import Mapping
from pathlib import Path

from components.kernel.digests import file_digests, file_sha256
from components.kernel.errors import InputError

SUMS_NAME = "SHA256SUMS"


def write_sums(folder: Path) -> str:
    """Write the list of every file below a folder and give the list's own sha256."""
    sums = folder / SUMS_NAME
    digests = {name: digest for name, digest in file_digests(folder).items() if name != SUMS_NAME}
    sums.write_text(
        "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())), encoding="utf-8"
    )
    return file_sha256(sums)


def require_sums(folder: Path, digest: str) -> None:
    """Refuse a folder that is not, file by file, the one whose list has this sha256.

    Raises:
        InputError: names what is missing, changed or too much.
    """
    require_files(folder, read_sums(folder / SUMS_NAME, digest))


def read_sums(sums: Path, digest: str) -> dict[str, str]:
    """The sha256 of every registered file by its path, of the list that has this sha256.

    Raises:
        InputError: there is no such list.
    """
    if not sums.is_file() or file_sha256(sums) != digest:
        raise InputError(
            f"{sums} is missing or is not the list that was registered (sha256 {digest}): the "
            "store is damaged or was changed; delete the version in MLflow and register again"
        )
    lines = (line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines())
    return {name: file_digest for file_digest, name in lines}


def require_files(folder: Path, wanted: Mapping[str, str]) -> None:
    """Refuse a folder that does not hold exactly these files, the list itself aside.

    Raises:
        InputError: names what is missing, changed or too much.
    """
    found = {name: value for name, value in file_digests(folder).items() if name != SUMS_NAME}
    wrong = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if wrong:
        raise InputError(
            f"{len(wrong)} file(s) of {folder} are not as registered, e.g. {', '.join(wrong[:3])}; "
            "download again; if the store is damaged, delete the version in MLflow and register "
            "its checkpoint again"
        )
