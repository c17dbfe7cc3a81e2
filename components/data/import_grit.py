"""`pixclip import-grit`: GRIT's Parquet files, as published, from a folder or an S3 prefix.

The files are copied (as clones that share their blocks, where the file system has them), never
linked: they are not ours. From S3 each object is fetched once, also if the run is killed or the
rest of the source has to be mended before it is accepted. Links inside the folder are followed;
names that begin with `.` or `_` are unfinished work and left out.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from components.core.digests import sha256_text
from components.core.errors import InputError
from components.core.files import copy_file, link_or_copy
from components.core.progress import progress
from components.core.s3 import S3Object, S3Store, is_s3, split_uri
from components.core.sources import ends_with, list_folder, require_apart, some_of
from components.core.step import Metrics, Out, StepSettings, Work, runtime, source, step
from components.core.tables import WORK_FOLDER
from data_contracts.engine.reading import TableError, num_rows, raw_batches, read_schema
from data_contracts.grit import READ_SCHEMA, schema_faults

log = logging.getLogger(__name__)

SUFFIX = ".parquet"


class ImportGritSettings(StepSettings):
    """Where the files are."""

    uri: str = source(
        "",
        description="folder, or s3://bucket/prefix, with GRIT's Parquet files below it",
        suffix=SUFFIX,
        examples=["/data/grit"],
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")


@step(image="data", work=Work.PORTABLE)
def import_grit(grit: Out, settings: ImportGritSettings) -> Metrics:
    """Bring GRIT's published Parquet files here, from a folder or an S3 prefix."""
    if not settings.uri:
        raise InputError("import_grit.uri is empty: name a folder or s3://bucket/prefix")
    store = S3Store(settings.endpoint_url) if is_s3(settings.uri) else None
    if store is None:
        require_apart("import_grit.uri", grit.parent, Path(settings.uri))
    sources = s3_sources(store, settings.uri) if store else local_sources(Path(settings.uri))
    if not sources:
        raise InputError(f"{settings.uri} holds no {SUFFIX} file")
    log.info("%s holds %d %s files", settings.uri, len(sources), SUFFIX)
    num_records = num_bytes = 0
    with progress("import", len(sources), unit="file") as bar:
        for item in sources:
            target = grit / item.name
            if not target.exists():
                bring(item, target, grit / WORK_FOLDER, store)
            num_records += num_rows(target)
            num_bytes += target.stat().st_size
            bar.update()
    return {"files": len(sources), "records": num_records, "bytes": num_bytes}


@dataclass(frozen=True)
class Source:
    """A file to bring: its name below the artifact, and where it is."""

    name: PurePosixPath
    origin: Path | S3Object

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return str(self.origin) if isinstance(self.origin, Path) else self.origin.uri


def bring(item: Source, target: Path, work: Path, store: S3Store | None) -> None:
    """Make the file appear at `target`, whole and known to be in GRIT's layout.

    Raises:
        InputError: it cannot be read, or is not in GRIT's layout; names it and its columns.
    """
    partial = target.with_name(f".{target.name[:100]}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(item.origin, S3Object):
        assert store is not None
        kept = fetch(item.origin, work, store)
        partial.unlink(missing_ok=True)
        link_or_copy(str(kept), str(partial))
    else:
        kept = partial
        try:
            copy_file(item.origin, partial)
        except OSError as error:
            raise InputError(f"cannot copy {item.place}: {error.strerror}") from error
    try:
        require_grit(partial, item)
    except InputError:
        kept.unlink()  # what was damaged on the way must be brought again
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)


def fetch(origin: S3Object, work: Path, store: S3Store) -> Path:
    """The object's file in the work folder, under a name that its address and content decide."""
    kept = work / sha256_text(f"{origin.uri} {origin.num_bytes} {origin.etag}")
    if not kept.exists():
        with progress(Path(origin.key).name[:80], origin.num_bytes, unit="B") as bar:
            for num_bytes in store.download(origin, kept):
                bar.update(num_bytes)
    return kept


def require_grit(path: Path, item: Source) -> None:
    """Read a file to its end.

    Raises:
        InputError: names the source and what is wrong with it: columns, or damage.
    """
    try:
        schema = read_schema(path)
        faults = schema_faults(schema)
        if not faults:
            for _ in raw_batches(path, [n for n in READ_SCHEMA.names if n in schema.names]):
                pass
    except TableError as error:
        raise InputError(f"{item.place} is not a Parquet file to read: it {error.reason}") from None
    if faults:
        raise InputError(f"{item.place} is not in GRIT's layout: {'; '.join(faults)}")


MAX_PART_BYTES = 150  # of a folder or file in a name; file systems take 255, some of them less
ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\:*?\"<>|]")  # what some file system refuses


Found = tuple[str, Path | S3Object]  # the name below the source, and where it is


def local_sources(folder: Path) -> list[Source]:
    """The Parquet files below a folder, by name; links are followed, a file is read once.

    Raises:
        InputError: it is no folder, cannot be read, or a link in it leads nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"import_grit.uri: {folder} is no folder")
    listing = list_folder(folder)
    if listing.dangling:
        raise InputError(
            f"{folder}: {some_of(listing.dangling)}; what it led to would be lost without a word: "
            "mount or restore it, or remove the link"
        )
    listing.tell(folder)
    found = _visible([(name.as_posix(), folder / name) for name in listing.files], folder)
    num_others = sum(not ends_with(name.name, SUFFIX) for name in listing.files)
    if num_others:
        log.info("%s: %d files do not end with %s and are left", folder, num_others, SUFFIX)
    return _named(_once(folder, found))


def s3_sources(store: S3Store, uri: str) -> list[Source]:
    """The Parquet objects below a prefix, by key.

    Raises:
        InputError: the bucket cannot be listed, or a key leads out of the artifact.
    """
    _, prefix = split_uri(uri)
    start = len(prefix.rstrip("/"))
    found: list[Found] = [
        (item.key[start:].lstrip("/") or item.key.rpartition("/")[2], item)
        for item in store.find(uri)
    ]
    return _named(_visible(found, uri))


def safe_name(name: str, uri: str) -> PurePosixPath:
    """A relative path that stays below the artifact, and that every file system takes.

    Parts with odd characters, or too long, are cut and marked with a digest of the whole name.

    Raises:
        InputError: it would leave the artifact, or be hidden there.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.name or is_hidden(path) or "\0" in name:
        raise InputError(f"{uri}: a key with the parts {path.parts} cannot become a file name")
    parts = [_safe_part(part) for part in path.parts]
    stem = parts[-1][: -len(SUFFIX)] if ends_with(parts[-1], SUFFIX) else parts[-1]
    safe = PurePosixPath(*parts[:-1], f"{stem}{SUFFIX}")
    return safe if safe == path else _marked(safe, name)


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a part of the name starts with a dot or `_`, as `..` and unfinished files do."""
    return any(part.startswith((".", "_")) for part in name.parts)


def _visible(found: Sequence[Found], where: object) -> list[Found]:
    """The Parquet files, by name, without the hidden ones, which are logged."""
    tables = sorted(
        (item for item in found if ends_with(item[0], SUFFIX)), key=lambda item: item[0]
    )
    hidden = [name for name, _ in tables if is_hidden(PurePosixPath(name)) and not _leads_out(name)]
    if hidden:
        log.warning(
            "%s: names with a part that begins with . or _ mean unfinished work; left out: %s",
            where,
            some_of(hidden),
        )
    return [item for item in tables if item[0] not in set(hidden)]


def _leads_out(name: str) -> bool:
    return bool({".", ".."} & set(name.split("/")))


def _once(folder: Path, found: Sequence[Found]) -> list[Found]:
    """Without names that lead to a file which another name has; real files before links."""
    first: dict[tuple[int, int], str] = {}
    for name, _ in sorted(found, key=lambda item: ((folder / item[0]).is_symlink(), item[0])):
        stat = (folder / name).stat()
        earlier = first.setdefault((stat.st_dev, stat.st_ino), name)
        if earlier != name:
            log.warning("%s/%s is the same file as %s and is read once", folder, name, earlier)
    return [item for item in found if item[0] in set(first.values())]


def _named(found: Sequence[Found]) -> list[Source]:
    """Sources under names of which none is another's, nor another's folder, in any case."""
    names = [safe_name(name, str(origin)) for name, origin in found]
    taken = {_folded(parent) for name in names for parent in name.parents}
    sources = []
    for (name, origin), safe in zip(found, names, strict=True):
        if _folded(safe) in taken:
            key = origin.key if isinstance(origin, S3Object) else name
            log.warning("%r differs too little from another name: it gets a mark", key)
            safe = _marked(safe, key)
        taken.add(_folded(safe))
        sources.append(Source(safe, origin))
    return sources


def _folded(name: PurePosixPath) -> str:
    """What names have in common that some file systems take for one."""
    return normalize("NFC", str(name)).casefold()


def _safe_part(part: str) -> str:
    odd_free = ODD.sub("-", part)
    return odd_free.encode()[:MAX_PART_BYTES].decode(errors="ignore")


def _marked(name: PurePosixPath, original: str) -> PurePosixPath:
    stem = name.name.removesuffix(SUFFIX)
    return name.with_name(f"{stem}~{sha256_text(original)[:8]}{SUFFIX}")
