"""`pixclip import-coco`: your own images with a COCO annotation file, as GRIT records.

The images stay where they are: their addresses are `file:///name`, relative to the folder (give
the same folder to ingest as `file_root`), or `s3://bucket/prefix/name`.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field

from components.import_coco.annotations import CocoImage, add_annotations, read_images, read_json
from components.import_coco.records import record_of
from components.kernel.errors import InputError
from components.kernel.progress import progress
from components.kernel.s3 import S3Store, is_s3, split_uri
from components.kernel.step import Metrics, Out, StepSettings, runtime, step
from components.kernel.tables import Row, write_rows
from data_contracts.grit import SAMPLE_SCHEMA


class ImportCocoSettings(StepSettings):
    """Where the images and their annotations are."""

    images: str = Field("", description="folder, or s3://bucket/prefix, that file names start from")
    annotations: str = Field(
        "", description="COCO JSON file, or s3://bucket/key, with boxes and segmentations"
    )
    captions: str = Field(
        "", description="second COCO JSON file with captions of the same images; may be empty"
    )
    split: Literal["", "train", "benchmark"] = Field(
        "", description="split of all images; empty lets the packing step decide"
    )
    keep_crowds: bool = Field(
        False, description="keep annotations of whole groups (`iscrowd`) as regions"
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")


@step(image="data")
def import_coco(grit: Out, settings: ImportCocoSettings) -> Metrics:
    """Make GRIT records of your own images and a COCO annotation file."""
    for name in ("images", "annotations"):
        if not getattr(settings, name):
            raise InputError(f"import_coco.{name} is empty: name a path or an s3:// address")
    address = address_maker(settings.images)
    images = read_images(load(settings.annotations, settings), settings.annotations)
    if settings.captions:
        add_annotations(images, load(settings.captions, settings), settings.captions, {})
    counts: Counter[str] = Counter()
    rows = make_records(images, address, settings, counts)
    num_records = write_rows(grit / "part-00000.parquet", rows, SAMPLE_SCHEMA)
    return {
        "records": num_records,
        "regions": counts["regions"],
        "crowds_left_out": counts["crowds_left_out"],
        "masks_unusable": counts["masks_unusable"],
    }


def make_records(
    images: Mapping[int, CocoImage],
    address: Callable[[str], str],
    settings: ImportCocoSettings,
    counts: Counter[str],
) -> Iterator[Row]:
    """The records by image id."""
    with progress("import", len(images), unit="image") as bar:
        for image_id in sorted(images):
            image = images[image_id]
            crowds = [region for region in image.regions if region.is_crowd]
            if crowds and not settings.keep_crowds:
                image.regions = [region for region in image.regions if not region.is_crowd]
                counts["crowds_left_out"] += len(crowds)
            counts["regions"] += len(image.regions)
            yield record_of(image, address(image.file_name), settings.split, counts)
            bar.update()


def address_maker(images: str) -> Callable[[str], str]:
    """From the file name of an annotation to the address of the image.

    Raises:
        InputError: `images` is neither a folder nor an s3:// address.
    """
    if is_s3(images):
        bucket, prefix = split_uri(images)
        base = f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix else f"s3://{bucket}/"
        return lambda name: base + safe_path(name)
    if not Path(images).is_dir():
        raise InputError(f"import_coco.images: {images} is no folder")
    return lambda name: f"file:///{quote(safe_path(name))}"


def safe_path(file_name: str) -> str:
    """A file name of an annotation, which is a relative path below the images.

    Raises:
        InputError: it leads elsewhere.
    """
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts or "\\" in file_name or "\0" in file_name:
        raise InputError(f"the file name {file_name!r} does not stay below import_coco.images")
    return path.as_posix()


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
