"""`pixclip decontaminate`: no image that an evaluation set tests with is learnt from.

    pixclip decontaminate --candidates candidates --images images \\
        --uncontaminated uncontaminated --quarantine decontaminate.parquet \\
        --set cub=/data/CUB_200_2011 --set evaluation_images=/data/urban1k

Every training image is compared with the test images of every set that the settings name, across
data sets: by its bytes, and by its perceptual hash with the test image as it is and mirrored.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from components.core.counts import (
    ROWS_IN,
    quarantine_row,
    reasons_in,
    region_counts,
    write_quarantine,
)
from components.core.errors import GateError
from components.core.progress import progress
from components.core.s3 import is_s3
from components.core.sources import require_apart
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import (
    WORK_FOLDER,
    Row,
    groups_of,
    part_name,
    read_batches,
    read_rows,
    table_paths,
    write_rows,
)
from components.data.decontaminate.evaluation import read_evaluation_images
from components.data.decontaminate.leaks import Leak, find_leaks
from components.data.decontaminate.settings import DecontaminateSettings
from data_contracts.engine.reading import read_schema

log = logging.getLogger(__name__)


def require_trustworthy(
    metrics: Mapping[str, int | float], settings: DecontaminateSettings
) -> None:
    """Refuse a comparison with too few test images, and one that finds nearly everything leaked.

    Raises:
        GateError: says which of the two.
    """
    faults = ("missing", "unreadable")
    lost = {name: int(metrics[f"evaluation_images_{name}"]) for name in faults}
    num_lost, num_images = sum(lost.values()), int(metrics["evaluation_images"])
    if num_lost > settings.max_missing_share * num_images:
        raise GateError(
            f"decontaminate could not compare with {num_lost} of {num_images} test images",
            lost,
            "Bring the evaluation sets whole, or raise decontaminate.max_missing_share.",
        )
    reasons = reasons_in(metrics)
    if sum(reasons.values()) > settings.max_leaked_share * metrics[ROWS_IN]:
        raise GateError(
            f"decontaminate finds {sum(reasons.values())} of {metrics[ROWS_IN]} regions leaked",
            reasons,
            "The quarantine names both images of each. If they are no mistake, raise "
            "decontaminate.max_leaked_share.",
        )


@step(image="data", version=2, gate=require_trustworthy, work=Work.PORTABLE)
def decontaminate(
    candidates: In,
    images: In,
    uncontaminated: Out,
    quarantine: Out,
    settings: DecontaminateSettings,
) -> Metrics:
    """Drop the regions of images that an evaluation set tests with.

    In: region rows with their images' hashes, the images they belong to, and the evaluation sets
    below, read as import-parts reads them, of which only the test images count. Out: the rows of
    all images that are no test image by their bytes or by perceptual hash, also mirrored; the
    others go to the quarantine with both addresses. Where no set is named, every row goes on. What
    was described already (`captions`, of `import_finehard`) can be given as candidates: `pack` then
    takes the output as its captions.
    """
    for name, address in _named(settings).items():
        if not is_s3(address):
            require_apart(f"decontaminate.{name}", uncontaminated.parent, Path(address))
    work = uncontaminated / WORK_FOLDER
    evaluation = read_evaluation_images(settings, work)
    if not evaluation.counts["evaluation_images"]:
        log.warning("decontaminate names no evaluation set: nothing was compared")
    sha256s, phashes = _read_images(candidates)
    hashes = np.array([int(phash, 16) for phash in phashes], dtype=np.uint64)
    leaks = find_leaks(sha256s, hashes, evaluation, settings.max_phash_distance)
    counts = Counter[str]()
    write_quarantine(quarantine, _write_groups(candidates, uncontaminated, leaks, counts))
    num_kept = counts.pop("", 0)
    return region_counts(
        num_kept + counts.total(),
        num_kept,
        counts,
        images_in=len(sha256s),
        images_leaked=len(leaks),
        **evaluation.counts,
    )


def _named(settings: DecontaminateSettings) -> dict[str, str]:
    named = {kind.name: address for kind, address in settings.named().items()}
    other = settings.evaluation_images
    return {**named, **({"evaluation_images": other} if other else {})}


def _read_images(candidates: Path) -> tuple[list[str], list[str]]:
    """SHA-256 and perceptual hash of every image of the candidates."""
    found: dict[str, str] = {}
    for batch in read_batches(candidates, ["image_sha256", "image_phash"]):
        sha256s, phashes = (column.to_pylist() for column in batch.columns)
        found.update(zip(sha256s, phashes, strict=True))
    return list(found), list(found.values())


def _write_groups(
    candidates: Path, uncontaminated: Path, leaks: Mapping[str, Leak], counts: Counter[str]
) -> Iterator[Row]:
    """Write every group's clean rows; gives the quarantine's rows on the way."""
    groups = groups_of(candidates)
    # Of captions, which are candidates with more columns, all columns are kept.
    schema = read_schema(table_paths(candidates)[0])
    with progress("decontaminate", len(groups), unit="group") as bar:
        for group in groups:
            good: list[Row] = []
            for row in read_rows(candidates / group):
                leak = leaks.get(row["image_sha256"])
                counts[leak.reason if leak else ""] += 1
                if leak is None:
                    good.append(row)
                else:
                    detail = f"{row['url']}: {leak.detail}"
                    yield quarantine_row("decontaminate", row, leak.reason, detail)
            write_rows(uncontaminated / group / part_name(0), good, schema)
            bar.update()
