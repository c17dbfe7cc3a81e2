"""Make one data set of several: `pixclip merge-data --datasets … --dataset … --quarantine …`.

Each is brought into a folder of its own first, whose name is that of the set from then on:

    pixclip resolve-data --dataset runs/both/datasets/longgrit --set name=longgrit
    pixclip resolve-data --dataset runs/both/datasets/fgpart --set name=fgpart
    pixclip merge-data --datasets runs/both/datasets --dataset runs/both/pixclip_parts \\
        --quarantine runs/both/quarantine/merge_data.parquet --params params/merge.yaml

An image of one set that is in a stricter split of another, or looks like one there, is left out;
so is one that an earlier set has in the same split.
"""

from collections import Counter
from collections.abc import Mapping

from pydantic import Field

from components.core.counts import ROWS_IN, reasons_in, region_counts
from components.core.errors import GateError
from components.core.step import In, Metrics, Out, StepSettings, step, threshold


class MergeDataSettings(StepSettings):
    """What counts as the same image, and how much may be lost to that."""

    max_phash_distance: int = Field(
        6,
        description="largest distance of two images' 64-bit perceptual hashes, in bits, at which "
        "one of another set's stricter split is left out, as in decontaminate; the contract of a "
        "data set asks for 4",
        ge=4,
        le=10,
    )
    max_left_out_share: float = threshold(
        0.2,
        "share of all regions that may be left out; more speak of sets that were made of the same "
        "images",
        ge=0,
        le=1,
    )


def require_little_overlap(metrics: Mapping[str, int | float], settings: MergeDataSettings) -> None:
    """Refuse to merge sets of which too much is the same.

    Raises:
        GateError: says how much, by reason.
    """
    reasons = reasons_in(metrics)
    if sum(reasons.values()) > settings.max_left_out_share * metrics[ROWS_IN]:
        raise GateError(
            f"merge_data leaves out {sum(reasons.values())} of {metrics[ROWS_IN]} regions",
            reasons,
            "Were the sets made of the same images? Samples of two seeds are not. If it is no "
            "mistake, raise merge_data.max_left_out_share.",
        )


@step(image="data", version=2, gate=require_little_overlap)
def merge_data(datasets: In, dataset: Out, quarantine: Out, settings: MergeDataSettings) -> Metrics:
    """Merge data sets into one with the same split everywhere; no image is decoded.

    The quarantine has the regions of images that are left out, with what decided it.
    """
    from components.data.merge_data.card import write_pages
    from components.data.merge_data.overlap import find_left_out
    from components.data.merge_data.sets import open_sets
    from components.data.merge_data.writer import write_merged

    sets = open_sets(datasets)
    left_out = find_left_out(sets, settings.max_phash_distance)
    dataset.mkdir(parents=True, exist_ok=True)
    counts = write_merged(sets, left_out, dataset, quarantine)
    write_pages(dataset, sets, counts, settings.max_phash_distance)
    reasons = Counter[str]()
    for count in counts.values():
        for (_, reason), number in count.reasons.items():
            reasons[reason] += number
    num_regions = sum(count.num_regions for count in counts.values())
    return region_counts(
        num_regions + reasons.total(),
        num_regions,
        reasons,
        num_images=sum(s.num_images for count in counts.values() for s in count.splits.values()),
        images_left_out=sum(count.num_images_left_out for count in counts.values()),
        **{f"regions_{name}": count.num_regions for name, count in counts.items()},
    )
