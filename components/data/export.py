"""Export the data set for others' tools: `pixclip export --dataset … --exports …`.

COCO JSON and Hugging Face Parquet, both from the data set's own files alone, in which nothing is
trusted.
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic import Field

from components.core.errors import InputError
from components.core.progress import progress
from components.core.step import In, Metrics, Out, StepSettings, step
from components.core.tables import open_writer
from pixclip.data.errors import DataError
from pixclip.data.layout import CARD_NAME, SHARDS, SPLITS
from pixclip.data.samples import Fields, parse_sample
from pixclip.data.shards import Member, TarError, read_members
from pixclip.json_files import parse_json, shown
from pixclip.masks import Rle, decode_mask, rle_num_pixels


class ExportSettings(StepSettings):
    """How the exports are cut into files."""

    images_per_file: int = Field(
        4000, ge=1, description="images in one Parquet file of the Hugging Face export"
    )


@step(image="data")
def export(dataset: In, exports: Out, settings: ExportSettings) -> Metrics:
    """Write the data set as COCO JSON (`coco/`) and Hugging Face Parquet (`huggingface/`)."""
    num_images = write_coco(dataset, exports / "coco")
    num_files = write_huggingface(
        dataset, exports / "huggingface", num_images, settings.images_per_file
    )
    return {"num_images": sum(num_images.values()), "num_parquet_files": num_files}


TEXT_FIELDS = ("phrase", "object_caption", "context_caption", "long_caption", "short_caption")
CATEGORY = {"id": 1, "name": "region", "supercategory": "region"}


# COCO JSON: one file a split, one annotation a region, masks as compressed RLE.
#
# The format: https://cocodataset.org/#format-data. Phrases are an open vocabulary, so there is one
# category, "region"; each annotation carries its phrase and captions as further fields.


class Numbers:
    """Running ids of images and annotations, unique over all splits."""

    def __init__(self) -> None:
        """Start at 1: many readers take 0 for missing."""
        self.image = self.annotation = 1


def write_coco(dataset: Path, folder: Path) -> dict[str, int]:
    """Write `{split}.json` and `images/{split}/*.jpg`; gives the number of images by split."""
    numbers, counts = Numbers(), {}
    with progress("export: COCO", unit="image") as bar:
        for split in SPLITS:
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            first = numbers.image
            for _ in _write_split(dataset, folder, split, numbers):
                bar.update(1)
            counts[split] = numbers.image - first
    return counts


@dataclass(frozen=True)
class Sample:
    """One image with its regions, as `key.jpg` and `key.json` hold them."""

    key: str
    jpeg: bytes
    content: dict[str, Any]


def _write_split(dataset: Path, folder: Path, split: str, numbers: Numbers) -> Iterator[Sample]:
    """Stream a split to its JSON file; annotations wait in a file of their own."""
    path = folder / f"{split}.json"
    images, annotations = path.with_suffix(".images"), path.with_suffix(".annotations")
    with (
        images.open("w", encoding="utf-8") as image_file,
        annotations.open("w", encoding="utf-8") as annotation_file,
    ):
        image_separator = annotation_separator = "\n"
        for sample in read_samples(dataset, split):
            file_name = f"{split}/{sample.key}.jpg"
            (folder / "images" / file_name).write_bytes(sample.jpeg)
            image_file.write(image_separator + _line(image_entry(sample, file_name, numbers)))
            image_separator = ",\n"
            for region in sample.content["regions"]:
                entry = annotation_entry(region, numbers)
                annotation_file.write(annotation_separator + _line(entry))
                annotation_separator = ",\n"
                numbers.annotation += 1
            numbers.image += 1
            yield sample
    _assemble(path, images, annotations)


def _assemble(path: Path, images: Path, annotations: Path) -> None:
    info = {"description": f"LongGRIT, split {path.stem}"}
    with path.open("wb") as file:
        file.write(f'{{"info": {_line(info)}, "licenses": [],\n'.encode())
        file.write(f'"categories": [{_line(CATEGORY)}],\n"images": ['.encode())
        _append(file, images)
        file.write(b'],\n"annotations": [')
        _append(file, annotations)
        file.write(b"]}\n")


def _append(target: Any, source: Path) -> None:
    with source.open("rb") as file:
        shutil.copyfileobj(file, target)
    source.unlink()


def image_entry(sample: Sample, file_name: str, numbers: Numbers) -> dict[str, Any]:
    """COCO's image entry; `file_name` is relative to the folder `images`."""
    content = sample.content
    return {
        "id": numbers.image,
        "file_name": file_name,
        "width": content["width_px"],
        "height": content["height_px"],
        "image_id": content["image_id"],
        "caption": content["caption"],
        "coco_url": content["url"],
        "subset": content["subset"],
    }


def annotation_entry(region: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """COCO's annotation of a region, with its captions."""
    height_px, width_px = region["mask"]["size"]
    mask = decode_mask(Rle(height_px, width_px, region["mask"]["counts"]))
    x1, y1, x2, y2 = region["box_xyxy"]
    return {
        "id": numbers.annotation,
        "image_id": numbers.image,
        "category_id": CATEGORY["id"],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "segmentation": region["mask"],
        "iscrowd": 0,
        "region_id": region["region_id"],
        **{name: region[name] for name in TEXT_FIELDS},
    }


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


ROW_GROUP_ROWS = 100  # images are large: readers that skip through a file fetch little


# Hugging Face Parquet: `datasets.load_dataset(<folder>)` opens it, with decoded images.
#
# One row an image. The features stand in the Parquet files' metadata, as `datasets` writes them.


def write_huggingface(
    dataset: Path, folder: Path, num_images: dict[str, int], images_per_file: int
) -> int:
    """Write `data/{split}-*.parquet` and the card; gives the number of Parquet files."""
    num_files = {split: -(-count // images_per_file) for split, count in num_images.items()}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with progress("export: Hugging Face", sum(num_images.values()), "image") as bar:
        for split in SPLITS:
            samples = read_samples(dataset, split)
            for index in range(num_files[split]):
                name = f"{split}-{index:05d}-of-{num_files[split]:05d}.parquet"
                part = itertools.islice(samples, images_per_file)
                bar.update(_write_file(folder / "data" / name, part))
    (folder / CARD_NAME).write_text(_card(num_images), encoding="utf-8")
    return sum(num_files.values())


def features() -> Any:
    """The columns as `datasets.Features`."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    region = {
        "region_id": text,
        "box_xyxy": List(Value("float64"), length=4),
        "mask": {"size": List(Value("int32"), length=2), "counts": text},
        **dict.fromkeys(TEXT_FIELDS, text),
        "provenance": text,  # JSON: its stages differ from describer to describer
    }
    return Features(
        {
            "image_id": text,
            "image": Image(),
            "caption": text,
            "url": text,
            "width_px": Value("int32"),
            "height_px": Value("int32"),
            "subset": text,
            "regions": List(region),
        }
    )


def _write_file(path: Path, samples: Iterable[Sample]) -> int:
    """Write one Parquet file, a row group of images in memory at a time."""
    import pyarrow as pa

    schema = features().arrow_schema
    num_rows = 0
    with open_writer(path, schema) as writer:
        for batch in _batched(samples, ROW_GROUP_ROWS):
            writer.write_table(pa.Table.from_pylist([_row(sample) for sample in batch], schema))
            num_rows += len(batch)
    return num_rows


def _batched(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _row(sample: Sample) -> dict[str, Any]:
    content = sample.content
    regions = [
        {**region, "provenance": json.dumps(region["provenance"], sort_keys=True)}
        for region in content["regions"]
    ]
    image = {"bytes": sample.jpeg, "path": f"{sample.key}.jpg"}
    return {**content, "image": image, "regions": regions}


def _card(num_images: dict[str, int]) -> str:
    """The card's front matter says which files make which split."""
    files = [
        {"split": split, "path": f"data/{split}-*.parquet"} for split in SPLITS if num_images[split]
    ]
    front = {
        "pretty_name": "LongGRIT",
        "license": "other",
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# LongGRIT\n\n"
        "One row an image, with its regions; `provenance` is JSON text. "
        "The data set's own card says how it was made and under which licences.\n"
    )


MAX_BYTES = {"json": 32 << 20, "jpg": 512 << 20}  # of a sample's members


def read_samples(dataset: Path, split: str) -> Iterator[Sample]:
    """Stream a split's samples, one image in memory at a time.

    Raises:
        InputError: a shard is damaged or holds something else than pairs of `jpg` and `json`, or
            a description lacks something.
    """
    keys: set[str] = set()
    for shard in sorted((dataset / split).glob(SHARDS)):
        try:
            with shard.open("rb") as file:
                for key, members in _pairs(file):
                    if key in keys:
                        raise DataError(f"the key {shown(key)} comes twice in split {split}")
                    keys.add(key)
                    yield _sample(file, shard, key, members)
        except TarError as error:
            what = "is damaged, or holds what is no part of a sample"
            raise InputError(f"{shard} {what}: {error}") from error
        except (ValueError, OSError) as error:
            raise InputError(f"{shard}: {error}") from error


def _pairs(file: BinaryIO) -> Iterator[tuple[str, dict[str, Member]]]:
    """The members of each sample, which lie beside each other."""
    parts: dict[str, Member] = {}
    last = ""
    for member in read_members(file):
        key, _, extension = member.name.partition(".")
        if extension not in MAX_BYTES or "/" in key or not key:
            raise DataError(f"it holds {shown(member.name)}, which is no part of a sample")
        if member.size > MAX_BYTES[extension]:
            raise DataError(f"{shown(member.name)} has {member.size} bytes: more than is read")
        if parts and key != last:
            raise DataError(f"{shown(last)} and {shown(member.name)} are not one sample")
        last = key
        parts[extension] = member
        if len(parts) == len(MAX_BYTES):
            yield key, parts
            parts = {}
    if parts:
        raise DataError(f"{shown(last)} is half a sample")


def _sample(file: BinaryIO, shard: Path, key: str, members: dict[str, Member]) -> Sample:
    contents = {}
    for extension, member in members.items():
        file.seek(member.offset)
        contents[extension] = file.read(member.size)
    # Which checks every field that readers share; the others are checked here.
    sample = parse_sample(shard.name, key, contents["json"], contents["jpg"])
    for region in sample.regions:
        if rle_num_pixels(region.mask.counts) != sample.height_px * sample.width_px:
            raise DataError(f"{sample.place}: the mask of {region.region_id} is damaged")
    fields = parse_json(contents["json"])
    Fields(fields, "").text("url")
    for section in Fields(fields, "").sections("regions"):
        section.section("provenance")
    return Sample(key, contents["jpg"], fields)
