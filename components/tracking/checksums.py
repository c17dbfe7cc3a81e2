"""`SHA256SUMS` of a folder, in the form that `sha256sum --check` reads."""

from pathlib import Path

from components.kernel.errors import InputError
from components.kernel.receipts import file_digests, file_sha256

SUMS_NAME = "SHA256SUMS"


def write_sums(folder: Path) -> str:
    """Write the list of every file below a folder and give the list's own sha256."""
    sums = folder / SUMS_NAME
    digests = {name: digest for name, digest in file_digests(folder).items() if name != SUMS_NAME}
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))
    return file_sha256(sums)


def require_sums(folder: Path, digest: str) -> None:
    """Refuse a folder that is not, file by file, the one whose list has this sha256.

    Raises:
        InputError: names what is missing, changed or too much.
    """
    sums = folder / SUMS_NAME
    if not sums.is_file() or file_sha256(sums) != digest:
        raise InputError(
            f"{sums} is missing or is not the list that was registered (sha256 {digest}); the "
            "store is damaged or was changed: register the checkpoint again"
        )
    lines = (line.split("  ", 1) for line in sums.read_text().splitlines())
    wanted = {name: file_digest for file_digest, name in lines}
    found = {name: value for name, value in file_digests(folder).items() if name != SUMS_NAME}
    wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if wrong:
        raise InputError(
            f"{len(wrong)} file(s) of {folder} are not as registered, e.g. {', '.join(wrong[:3])}; "
            "download again, or register the checkpoint again if the store is damaged"
        )
