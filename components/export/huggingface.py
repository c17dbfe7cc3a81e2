"""Hugging Face Parquet: `datasets.load_dataset(<folder>)` opens it, with decoded images.

One row an image. The features stand in the Parquet files' metadata, as `datasets` writes them.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from components.export.samples import SPLITS, Sample, read_samples
from components.kernel.progress import progress
from components.kernel.tables import open_writer

ROW_GROUP_ROWS = 100  # images are large: readers that skip through a file fetch little
TEXT_FIELDS = ("phrase", "object_caption", "context_caption", "long_caption", "short_caption")


def write_huggingface(
    longgrit: Path, folder: Path, num_images: dict[str, int], images_per_file: int
) -> int:
    """Write `data/{split}-*.parquet` and the card; gives the number of Parquet files."""
    num_files = {split: -(-count // images_per_file) for split, count in num_images.items()}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with progress("export: Hugging Face", sum(num_images.values()), "image") as bar:
        for split in SPLITS:
            samples = read_samples(longgrit, split)
            for index in range(num_files[split]):
                name = f"{split}-{index:05d}-of-{num_files[split]:05d}.parquet"
                part = itertools.islice(samples, images_per_file)
                bar.update(_write_file(folder / "data" / name, part))
    (folder / "README.md").write_text(_card(num_images), encoding="utf-8")
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
