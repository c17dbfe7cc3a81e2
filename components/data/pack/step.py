"""Pack captions and images into a data set: `pixclip pack --captions … --longgrit …`."""

from collections import Counter

from components.core.counts import region_counts
from components.core.step import In, Metrics, Out, step
from components.core.tables import WORK_FOLDER
from components.data.pack.settings import DATASETS, PackSettings
from pixclip.data.layout import MANIFEST_NAME


@step(image="data", version=4)
def pack(
    captions: In, images: In, quarantines: In, longgrit: Out, settings: PackSettings
) -> Metrics:
    """Write the data set: WebDataset shards by split, manifest, dataset card and report page.

    Images that look alike share a split, and the shards are shuffled by the seed. The card and
    the page count what every step dropped and why, from the quarantine files of all steps.
    """
    import numpy as np

    from components.data.pack.images import ImageStore
    from components.data.pack.plan import fill_buckets, plan_shards
    from components.data.pack.report import write_card, write_report
    from components.data.pack.statistics import measure
    from components.data.pack.writer import write_manifest, write_shards

    plan = plan_shards(captions, settings.split_rule(), settings.images_per_shard)
    buckets = longgrit / WORK_FOLDER / "buckets"
    fill_buckets(captions, plan, buckets)
    store = ImageStore(images, np.concatenate([shard.digests for shard in plan]))
    write_shards(plan, store, buckets, longgrit)
    num_regions = write_manifest(plan, longgrit)
    steps = DATASETS[settings.dataset].funnel
    statistics = measure(longgrit / MANIFEST_NAME, captions, quarantines, steps)
    write_card(longgrit, statistics, settings)
    write_report(longgrit, images, quarantines, statistics, settings)
    counts = {f"regions_{name}": split.num_regions for name, split in statistics.splits.items()}
    num_images = statistics.num_images
    return region_counts(num_regions, num_regions, Counter(), num_images=num_images, **counts)
