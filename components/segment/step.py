"""The step that gives every region a mask.

pixclip segment --candidates … --images … --regions … --quarantine … --set source=grabcut
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from components.kernel.errors import GateError
from components.kernel.progress import progress
from components.kernel.step import In, Metrics, Out, Work, step
from components.kernel.tables import WORK_FOLDER, count_rows, read_rows
from components.kernel.tally import (
    REASON_PREFIX,
    ROWS_IN,
    ROWS_QUARANTINED,
    tally,
    write_quarantine,
)
from components.segment.masking import Masker
from components.segment.parts import (
    REPAIRED,
    REPLACED,
    Part,
    PartReport,
    mask_part,
    split_images,
)
from components.segment.segmenter import build_segmenter
from components.segment.settings import SegmentSettings


def require_enough(metrics: Mapping[str, int | float], settings: SegmentSettings) -> None:
    """Refuse masks if too many regions were lost.

    Raises:
        GateError: with the reasons.
    """
    lost, num_regions = metrics[ROWS_QUARANTINED], metrics[ROWS_IN]
    if lost > settings.max_quarantined_share * num_regions:
        reasons = {
            name.removeprefix(REASON_PREFIX): int(number)
            for name, number in metrics.items()
            if name.startswith(REASON_PREFIX)
        }
        raise GateError(
            f"segment lost {lost} of {num_regions} regions",
            reasons,
            "Look at the reasons; past segment.max_quarantined_share the masks are not published.",
        )


@step(image="annotate", gpus=1, gate=require_enough, work=Work.KEPT)
def segment(
    candidates: In, images: In, regions: Out, quarantine: Out, settings: SegmentSettings
) -> Metrics:
    """Give every region a mask: the record's own, SAM's, GrabCut's, or the box itself.

    Every image is decoded and encoded once for all its boxes. A mask lies inside its box (with a
    margin), is not empty and is of the region's own image: an image that fails sends its regions
    to the quarantine.
    """
    num_regions = count_rows(candidates)
    (regions / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    segmenter = build_segmenter(settings)
    batch, threads = (
        (segmenter.images_per_batch, segmenter.num_threads) if segmenter is not None else (1, 1)
    )
    masker = Masker(images, segmenter, settings)
    parts: list[Part] = []
    with progress("segment", num_regions) as bar:
        for image_rows in split_images(read_rows(candidates), settings.images_per_part):
            parts.append(Part(regions, len(parts)))
            if not parts[-1].table.exists():
                outcomes = mask_part(image_rows, masker, batch, threads)
                parts[-1].write(outcomes, len(image_rows))
            bar.update(sum(map(len, image_rows)))
    write_quarantine(quarantine, (row for part in parts for row in part.quarantined()))
    metrics = _count(num_regions, [part.read_report() for part in parts])
    require_enough(metrics, settings)
    return metrics


def _count(num_regions: int, reports: Sequence[PartReport]) -> Metrics:
    reasons = sum((Counter(report.reasons) for report in reports), Counter[str]())
    sources = sum((Counter(report.num_masks) for report in reports), Counter[str]())
    flawed = sum((Counter(report.num_flawed) for report in reports), Counter[str]())
    num_iou = sum(report.num_iou for report in reports)
    metrics = tally(
        num_regions,
        sources.total(),
        reasons,
        num_images=sum(report.num_images for report in reports),
        **{f"masks_from.{source}": number for source, number in sorted(sources.items())},
        **{f"masks_{fate}": flawed[fate] for fate in (REPAIRED, REPLACED)},
    )
    if num_iou:
        iou_sum = sum(report.iou_sum for report in reports)
        metrics["mean_iou_with_record_mask"] = round(iou_sum / num_iou, 6)
    return metrics
