"""A data set that is not under DVC: a folder, whose files are linked, or an S3 prefix."""

from pathlib import Path, PurePosixPath

from components.kernel.errors import InputError
from components.kernel.files import link_or_copy
from components.kernel.progress import progress
from components.kernel.s3 import S3Store, is_s3, split_uri
from components.kernel.tables import WORK_FOLDER


def bring_uri(uri: str, endpoint_url: str, target: Path) -> dict[str, str]:
    """Bring all files of a folder or a prefix to `target`, and say where they came from.

    Raises:
        InputError: there is no such folder, or a file cannot be fetched.
    """
    if is_s3(uri):
        _fetch(S3Store(endpoint_url), uri, target)
    else:
        _link(Path(uri), target)
    return {"uri": uri}


def _link(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise InputError(f"resolve_data.uri: {source} is no folder")
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and name.parts[0] != WORK_FOLDER:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).unlink(missing_ok=True)  # of an attempt that was killed
            link_or_copy(str(path.resolve()), str(target / name))


def _fetch(store: S3Store, uri: str, target: Path) -> None:
    _, prefix = split_uri(uri)
    objects = store.list_objects(uri)
    with progress("fetch", sum(item.num_bytes for item in objects), unit="B") as bar:
        for item in objects:
            name = PurePosixPath(item.key[len(prefix.rstrip("/")) :].lstrip("/"))
            if any(part in {"..", "."} or "\0" in part for part in name.parts) or not name.parts:
                raise InputError(f"{item.uri}: this key cannot become a file name")
            place = target / name
            if not (place.exists() and place.stat().st_size == item.num_bytes):
                for num_bytes in store.download(item, place):
                    bar.update(num_bytes)
