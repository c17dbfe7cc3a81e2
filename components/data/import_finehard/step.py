"""`pixclip import-finehard`: FineHARD, PA-CLIP's first data set, as captions and images.

    pixclip import-finehard --captions runs/finehard/captions --images runs/finehard/images \\
        --quarantine runs/finehard/quarantine/import_finehard.parquet \\
        --set annotations=/data/FineHARD/jsonfiles --set images=/data/grit-12m

Both are what `pack` reads; `decontaminate` can stand between. Annotations are read entry by entry
and images a few at a time, so memory does not grow with the data set. docs/finehard.md tells more.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from components.core.counts import (
    ROWS_IN,
    ROWS_OUT,
    reasons_in,
    region_counts,
    write_quarantine,
)
from components.core.errors import GateError, InputError
from components.core.image_check import reuse_pixel_memory
from components.core.process import num_cores
from components.core.progress import progress
from components.core.s3 import is_s3
from components.core.sources import require_apart
from components.core.step import Metrics, Out, Work, step
from components.core.tables import WORK_FOLDER, Row
from components.data.formats.finehard import FineImage, FineRules, read_image
from components.data.formats.json_stream import stream_entries
from components.data.import_finehard.files import Annotations, find_annotations, open_images
from components.data.import_finehard.group import Group, Numbered, SeenImages
from components.data.import_finehard.records import RowMaker
from components.data.import_finehard.settings import ImportFineHardSettings
from data_contracts.reasons import FineHardReason


def require_enough(metrics: Mapping[str, int | float], settings: ImportFineHardSettings) -> None:
    """Refuse an import of which too much is lost.

    Raises:
        GateError: with the reasons.
    """
    reasons, total = reasons_in(metrics), int(metrics[ROWS_IN])
    missing = reasons.get(FineHardReason.IMAGE_MISSING, 0)
    if missing > settings.max_missing_share * total or not metrics[ROWS_OUT]:
        raise GateError(
            f"import_finehard kept {metrics[ROWS_OUT]} of {total} regions; the images of {missing} "
            "are missing",
            reasons,
            "The quarantine's details name the files that were looked for: give the folder that "
            "f_path starts from as import_finehard.images, and what comes before it in f_path as "
            "path_prefixes. If so many links are dead, raise import_finehard.max_missing_share.",
        )
    lost, there = sum(reasons.values()) - missing, total - missing
    if lost > settings.max_lost_share * there:
        raise GateError(
            f"import_finehard lost {lost} of {there} regions whose images are there",
            reasons,
            "The quarantine's details name file and entry. Mend them, or raise "
            "import_finehard.max_lost_share.",
        )


@step(image="data", version=2, gate=require_enough, work=Work.KEPT)
def import_finehard(
    captions: Out, images: Out, quarantine: Out, settings: ImportFineHardSettings
) -> Metrics:
    """Make region rows with captions and hard negatives, and their images, of FineHARD.

    The image itself is a region, with its long and short caption; so is every box, with its own. A
    box is its region's mask. What cannot be used goes to the quarantine with file and entry.
    """
    for name in ("annotations", "images"):
        address = getattr(settings, name)
        if not address:
            raise InputError(f"import_finehard.{name} names nothing; FineHARD is not fetched")
        if not is_s3(address) and Path(address).is_dir():
            require_apart(f"import_finehard.{name}", captions.parent, Path(address))
    work = captions / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    found = find_annotations(settings.annotations, settings.endpoint_url, work)
    groups = list(_write_groups(found, captions, images, settings))
    write_quarantine(quarantine, _all_dropped(groups))
    metrics = _count(groups, len(found))
    require_enough(metrics, settings)
    return metrics


def _write_groups(
    found: list[Annotations], captions: Path, images: Path, settings: ImportFineHardSettings
) -> Iterator[Group]:
    """Write every group that is not whole yet; gives all, in order."""
    num_threads = settings.num_threads or num_cores()
    reuse_pixel_memory(num_threads)
    work = captions / WORK_FOLDER
    files = open_images(settings.images, settings.endpoint_url, settings.max_bytes, work)
    maker = RowMaker(files, settings)
    entries = _read_all(found, FineRules(settings.path_prefixes, settings.num_negatives))
    with (
        progress("import finehard", unit="image") as bar,
        ThreadPoolExecutor(num_threads) as pool,
        closing(SeenImages(work / "seen.sqlite")) as seen,
    ):
        for number, some in enumerate(_batches(entries, settings.images_per_group)):
            group = Group(captions, images, number)
            if not group.report_path.exists():
                group.write(some, maker.make, pool, seen)
            bar.update(len(some))
            yield group


def _read_all(found: list[Annotations], rules: FineRules) -> Iterator[Numbered]:
    """Every entry with its number among all."""
    numbers = itertools.count()
    for annotations in found:
        with annotations.open() as file:
            for place, entry in enumerate(stream_entries(file, annotations.name)):
                yield next(numbers), read_image(entry, f"{annotations.name}#{place}", rules)


def _batches(entries: Iterable[Numbered], size: int) -> Iterator[list[tuple[int, FineImage]]]:
    left = iter(entries)
    while some := list(itertools.islice(left, size)):
        yield some


def _all_dropped(groups: list[Group]) -> Iterator[Row]:
    for group in groups:
        yield from group.dropped()


def _count(groups: list[Group], num_files: int) -> Metrics:
    counts, reasons = Counter[str](), Counter[str]()
    for group in groups:
        report = group.report()
        reasons.update(report.reasons)
        counts.update(
            entries=report.num_entries,
            images_out=report.num_images,
            rows=report.num_rows,
            regions_with_negatives=report.num_negatives,
        )
    num_rows = counts.pop("rows", 0)
    return region_counts(
        num_rows + reasons.total(), num_rows, reasons, files=num_files, **dict(counts)
    )
