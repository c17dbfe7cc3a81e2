"""`pixclip import-parts`: published data sets of objects with parts, as GRIT records.

Training images only; docs/fgpart.md tells the layouts and the rule of boxes. Images stay where they
are: the addresses are `s3://…`, or `file:///_sources/…` below the records (give that folder to
ingest as `file_root`), where a link leads to each source's folder, or an archive is unpacked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.core.counts import (
    ROWS_IN,
    reasons_in,
    region_counts,
    write_quarantine,
)
from components.core.errors import GateError, InputError
from components.core.process import num_cores
from components.core.progress import progress
from components.core.s3 import is_s3
from components.core.sources import require_apart
from components.core.step import Metrics, Out, step
from components.core.tables import Row, part_name, write_rows
from components.data.formats.parts import TEST
from components.data.formats.sources import OpenedSource, open_sources
from components.data.import_parts.records import RecordMaker, left_out_row
from components.data.import_parts.settings import ImportPartsSettings
from data_contracts.grit import PARTS_SCHEMA
from data_contracts.reasons import PartReason

SOURCES_FOLDER = "_sources"  # beside the records, whose readers pass it over
BATCH_IMAGES = 4096
COUNTED = ("regions", "files", "images_out", "test_images_left_out", "test_parts_left_out")


def require_enough(metrics: Mapping[str, int | float], settings: ImportPartsSettings) -> None:
    """Refuse an import that lost too much of its sources.

    Raises:
        GateError: with the reasons.
    """
    reasons = reasons_in(metrics)
    unseen = reasons.pop(PartReason.PART_NOT_VISIBLE, 0)
    lost, total = sum(reasons.values()), int(metrics[ROWS_IN]) - unseen
    if not metrics["images_out"] or lost > settings.max_lost_share * total:
        raise GateError(
            f"import_parts lost {lost} of {total} images, parts and rows, and made "
            f"{metrics['images_out']} records",
            reasons,
            "The quarantine's details name file and line. Mend the source, or raise "
            "import_parts.max_lost_share.",
        )


@step(image="data", version=2, gate=require_enough)
def import_parts(grit: Out, quarantine: Out, settings: ImportPartsSettings) -> Metrics:
    """Make GRIT records of the training images of part-annotated data sets.

    In: one or more of the data sets below, as their authors publish them. Out: a record an image,
    whose regions are the image itself and its visible parts, each with a box: the source's own, or
    one made around the annotated point by the rule `boxes` (docs/fgpart.md). Test images are left
    out; unseen parts, parts off their object and rows that cannot be read go to the quarantine.
    """
    named = settings.named()
    if not named:
        raise InputError("import_parts names no source: set one of its formats, e.g. cub")
    for kind, address in named.items():
        if not is_s3(address):
            require_apart(f"import_parts.{kind.name}", grit.parent, Path(address))
    counts, reasons = Counter[str](), Counter[str]()
    grit.mkdir(parents=True, exist_ok=True)
    write_quarantine(quarantine, _import_all(grit, settings, counts, reasons))
    num_out = counts.pop("regions")
    num_in = num_out + reasons.total()
    metrics = region_counts(num_in, num_out, reasons, **dict(sorted(counts.items())))
    require_enough(metrics, settings)
    return metrics


def _import_all(
    grit: Path, settings: ImportPartsSettings, counts: Counter[str], reasons: Counter[str]
) -> Iterator[Row]:
    """Write the records of every source on the way; gives what is dropped."""
    counts.update(dict.fromkeys(COUNTED, 0))
    for opened in open_sources(settings, grit / SOURCES_FOLDER, SOURCES_FOLDER):
        for place, reason, detail in opened.left_out.entries:
            reasons[reason] += 1
            yield left_out_row(opened.name, opened.files.address, place, reason, detail)
        test = [image for image in opened.images if image.split == TEST]
        counts["test_images_left_out"] += len(test)
        counts["test_parts_left_out"] += sum(len(image.parts) for image in test)
        for rows, dropped in _make_all(opened, settings):
            write_rows(grit / part_name(counts["files"]), rows, PARTS_SCHEMA)
            counts.update(files=1, images_out=len(rows))
            counts["regions"] += sum(len(row["ref_exps"]) for row in rows)
            reasons.update(row["reason"] for row in dropped)
            yield from dropped


def _make_all(
    opened: OpenedSource, settings: ImportPartsSettings
) -> Iterator[tuple[list[Row], list[Row]]]:
    """The records of a source and what was dropped, some images at a time, in order."""
    images = [image for image in opened.images if image.split != TEST]
    maker = RecordMaker(opened.name, opened.files, settings)
    with (
        progress(f"import {opened.name}", len(images), unit="image") as bar,
        ThreadPoolExecutor(num_cores()) as pool,
    ):
        for start in range(0, len(images), BATCH_IMAGES):
            made = []
            for one in pool.map(maker.make, images[start : start + BATCH_IMAGES]):
                made.append(one)
                bar.update()
            rows = [one.row for one in made if one.row is not None]
            yield rows, [row for one in made for row in one.dropped]
