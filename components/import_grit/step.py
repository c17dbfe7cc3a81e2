"""`pixclip import-grit`: GRIT's Parquet files, as published, from a folder or an S3 prefix.

The files are copied (as clones that share their blocks, where the file system has them), never
linked: they are not ours. From S3 each object is fetched once, also if the run is killed or the
rest of the source has to be mended before it is accepted. Links inside the folder are followed;
names that begin with `.` or `_` are unfinished work and left out.
"""

import logging
from pathlib import Path

from components.import_grit.finding import SUFFIX, Source, local_sources, s3_sources
from components.kernel.digests import sha256_text
from components.kernel.errors import InputError
from components.kernel.files import copy_file, link_or_copy
from components.kernel.progress import progress
from components.kernel.s3 import S3Object, S3Store, is_s3
from components.kernel.step import Metrics, Out, StepSettings, Work, runtime, source, step
from components.kernel.tables import WORK_FOLDER
from data_contracts.grit import READ_SCHEMA, schema_faults
from data_contracts.reading import TableError, num_rows, raw_batches, read_schema

log = logging.getLogger(__name__)


class ImportGritSettings(StepSettings):
    """Where the files are."""

    uri: str = source(
        "",
        description="folder, or s3://bucket/prefix, with GRIT's Parquet files below it",
        suffix=SUFFIX,
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")


@step(image="data", work=Work.PORTABLE)
def import_grit(grit: Out, settings: ImportGritSettings) -> Metrics:
    """Bring GRIT's published Parquet files here, from a folder or an S3 prefix."""
    if not settings.uri:
        raise InputError("import_grit.uri is empty: name a folder or s3://bucket/prefix")
    store = S3Store(settings.endpoint_url) if is_s3(settings.uri) else None
    if store is None:
        require_apart(grit.parent, Path(settings.uri))
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


def require_apart(folder: Path, source_folder: Path) -> None:
    """Refuse to import a folder into itself: each run would import what the one before brought.

    Raises:
        InputError: the output lies below the source.
    """
    if folder.resolve().is_relative_to(source_folder.resolve()):
        raise InputError(
            f"import_grit.uri: the output is to lie in {folder}, which is part of the source "
            f"{source_folder}: name another output, or the source's own folder"
        )


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
