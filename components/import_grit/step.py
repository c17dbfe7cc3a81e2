"""`pixclip import-grit`: GRIT's Parquet files, as published, from a folder or an S3 prefix.

Local files are hard-linked where the file system allows it. From S3 each file is fetched once; a
killed run goes on inside the file at which it stopped.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from components.kernel.errors import InputError
from components.kernel.progress import progress
from components.kernel.s3 import S3Object, S3Store, is_s3, split_uri
from components.kernel.step import Metrics, Out, StepSettings, runtime, step
from data_contracts.grit import schema_faults

SUFFIX = ".parquet"


class ImportGritSettings(StepSettings):
    """Where the files are."""

    uri: str = Field(
        "", description="folder, or s3://bucket/prefix, with GRIT's Parquet files below it"
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")


@dataclass(frozen=True)
class Source:
    """A file to bring: its name below the artifact, and where it is."""

    name: PurePosixPath
    origin: Path | S3Object


@step(image="data")
def import_grit(grit: Out, settings: ImportGritSettings) -> Metrics:
    """Bring GRIT's published Parquet files here, from a folder or an S3 prefix."""
    if not settings.uri:
        raise InputError("import_grit.uri is empty: name a folder or s3://bucket/prefix")
    store = S3Store(settings.endpoint_url) if is_s3(settings.uri) else None
    sources = s3_sources(store, settings.uri) if store else local_sources(Path(settings.uri))
    if not sources:
        raise InputError(f"{settings.uri} holds no {SUFFIX} file")
    num_records = num_bytes = 0
    with progress("import", len(sources), unit="file") as bar:
        for source in sources:
            target = grit / source.name
            if not target.exists():
                bring(source, target, store)
            num_records += count_grit_records(target, source.name)
            num_bytes += target.stat().st_size
            bar.update()
    return {"files": len(sources), "records": num_records, "bytes": num_bytes}


def local_sources(folder: Path) -> list[Source]:
    """The Parquet files below a folder, by name."""
    if not folder.is_dir():
        raise InputError(f"import_grit.uri: {folder} is no folder")
    names = [
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob(f"*{SUFFIX}"))
        if path.is_file()
    ]
    return [Source(name, folder / name) for name in names if not is_hidden(name)]


def s3_sources(store: S3Store, uri: str) -> list[Source]:
    """The Parquet objects below a prefix, by key."""
    _, prefix = split_uri(uri)
    sources = []
    for item in store.list_objects(uri):
        if item.key.endswith(SUFFIX):
            name = item.key[len(prefix.rstrip("/")) :].lstrip("/")
            sources.append(Source(safe_name(name, item.uri), item))
    return sources


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a part of the name starts with a dot, as `..` and unfinished files do."""
    return any(part.startswith(".") for part in name.parts)


def safe_name(name: str, uri: str) -> PurePosixPath:
    """A relative path that stays below the artifact.

    Raises:
        InputError: it would not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or is_hidden(path) or "\0" in name:
        raise InputError(f"{uri}: a key with the parts {path.parts} cannot become a file name")
    return path


def bring(source: Source, target: Path, store: S3Store | None) -> None:
    """Make the file appear at `target`, whole."""
    if isinstance(source.origin, S3Object):
        assert store is not None
        with progress(str(source.name), source.origin.num_bytes, unit="B") as bar:
            for num_bytes in store.download(source.origin, target):
                bar.update(num_bytes)
    else:
        link_or_copy(source.origin.resolve(), target)


def link_or_copy(origin: Path, target: Path) -> None:
    """A hard link, or a copy where the file systems differ."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(origin, target)
    except OSError:
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(origin, partial)
        partial.replace(target)


def count_grit_records(path: Path, name: PurePosixPath) -> int:
    """The number of records of a file that has GRIT's columns; another file is removed.

    Raises:
        InputError: names the file and its columns that do not fit.
    """
    try:
        faults = schema_faults(pq.read_schema(path))
        num_records = int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        faults, num_records = [f"it is not a Parquet file: {error}"], 0
    if faults:
        path.unlink()  # once the source is mended, a rerun must bring it again
        raise InputError(f"{name} is not in GRIT's layout: {'; '.join(faults)}")
    return num_records
