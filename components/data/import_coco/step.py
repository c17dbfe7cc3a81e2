"""`pixclip import-coco`: your own images with a COCO annotation file, as GRIT records.

The images stay where they are: their addresses are `file:///name`, relative to the folder (give
the same folder to ingest as `file_root`), or `s3://bucket/prefix/name`. What cannot be used is left
out: `_left_out.jsonl` beside the records names every such entry with its place and reason.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components.core.errors import GateError, InputError
from components.core.progress import progress
from components.core.s3 import S3Store, is_s3
from components.core.step import Metrics, Out, StepSettings, runtime, source, step, threshold
from components.core.tables import Row, part_name, write_rows
from components.data.formats.coco import (
    CocoImage,
    add_annotations,
    count_entries,
    read_images,
    read_json,
)
from components.data.formats.values import FILE_NAME, PREFIX, Id, LeftOut
from components.data.import_coco.addresses import address_maker
from components.data.import_coco.records import record_of
from data_contracts.grit import SAMPLE_SCHEMA

log = logging.getLogger(__name__)
ALWAYS_TOLD = ("regions", "crowds_left_out", "masks_unusable", "masks_repaired")


class ImportCocoSettings(StepSettings):
    """Where the images and their annotations are."""

    images: str = source(
        "",
        "folder, or s3://bucket/prefix, that file names start from",
        examples=["/data/animals"],
    )
    annotations: str = source(
        "",
        "COCO JSON file, or s3://bucket/key, with boxes and segmentations",
        examples=["/data/animals/annotations.json"],
    )
    captions: str = source(
        "", "second COCO JSON file with captions of the same images; may be empty"
    )
    split: Literal["", "train", "benchmark"] = Field(
        "", description="split of all images; empty lets the packing step decide"
    )
    keep_crowds: bool = Field(
        False, description="keep annotations of whole groups (`iscrowd`) as regions"
    )
    max_left_out_share: float = threshold(
        0.5,
        "share of left out entries (images, annotations, categories) past which the step fails",
        ge=0,
        le=1,
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")


def require_enough(metrics: Mapping[str, int | float], settings: ImportCocoSettings) -> None:
    """Refuse an import that left out too much of its source.

    Raises:
        GateError: with the reasons.
    """
    if metrics["crowds_left_out"] and not metrics["regions"]:
        raise GateError(
            f"import_coco left out all {metrics['crowds_left_out']} regions",
            {"iscrowd": int(metrics["crowds_left_out"])},
            "Tools flag masks as `iscrowd` that are of one object; import_coco.keep_crowds=true "
            "keeps them.",
        )
    reasons = {
        name.removeprefix(f"{PREFIX}."): int(number)
        for name, number in metrics.items()
        if name.startswith(f"{PREFIX}.")
    }
    lost, entries = int(metrics[PREFIX]), int(metrics["entries"])
    if lost > settings.max_left_out_share * entries:
        raise GateError(
            f"import_coco left out {lost} of {entries} entries",
            reasons,
            f"The draft's {FILE_NAME} names each with its place. Mend the file, or raise "
            "import_coco.max_left_out_share.",
        )


@step(image="data", gate=require_enough)
def import_coco(grit: Out, settings: ImportCocoSettings) -> Metrics:
    """Make GRIT records of your own images and a COCO annotation file."""
    for name in ("images", "annotations"):
        if not getattr(settings, name):
            raise InputError(f"import_coco.{name} is empty: name a path or an s3:// address")
    address = address_maker(settings.images)
    left_out, counts = LeftOut(), Counter[str]()
    content = load(settings.annotations, settings)
    images = read_images(content, settings.annotations, left_out)
    counts["entries"] += count_entries(content)
    if settings.captions:
        content = load(settings.captions, settings)
        add_annotations(images, content, settings.captions, {}, left_out)
        counts["entries"] += count_entries(content)
    del content
    grit.mkdir(parents=True, exist_ok=True)
    rows = make_records(images, address, settings, counts, left_out)
    num_records = write_rows(grit / part_name(0), rows, SAMPLE_SCHEMA)
    left_out.write(grit)
    if left_out.entries:
        log.warning("import_coco left out %s; all are in %s", left_out.first_of_each(), FILE_NAME)
    return {"records": num_records, **{name: counts[name] for name in ALWAYS_TOLD}} | {
        **dict(sorted(counts.items())),
        **left_out.metrics(),
    }


def make_records(
    images: Mapping[Id, CocoImage],
    address: Callable[[str], str],
    settings: ImportCocoSettings,
    counts: Counter[str],
    left_out: LeftOut,
) -> Iterator[Row]:
    """The records by image id."""
    with progress("import", len(images), unit="image") as bar:
        for image in sorted(images.values(), key=lambda image: image.image_id):
            crowds = [region for region in image.regions if region.is_crowd]
            if crowds and not settings.keep_crowds:
                image.regions = [region for region in image.regions if not region.is_crowd]
                counts["crowds_left_out"] += len(crowds)
            with left_out.judging(f"the image {image.image_id}"):
                url = address(image.file_name)
                row = record_of(image, url, settings.split, counts, left_out)
                counts["regions"] += len(row["ref_exps"])
                yield row
            bar.update()


def load(uri: str, settings: ImportCocoSettings) -> Mapping[str, Any]:
    """The content of a JSON file, local or in an S3 store."""
    if not is_s3(uri):
        return read_json(Path(uri), uri)
    store = S3Store(settings.endpoint_url)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "annotations.json"
        item = store.describe(uri)
        with progress("annotations", item.num_bytes, unit="B") as bar:
            for num_bytes in store.download(item, target):
                bar.update(num_bytes)
        return read_json(target, uri)
