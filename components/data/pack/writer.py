"""Write shards, their samples and the manifest; a finished shard is not written again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import InputError
from components.core.files import written_whole
from components.core.progress import progress
from components.core.shards import write_shard
from components.core.tables import WORK_FOLDER, Row, open_writer, write_rows
from components.data.pack.images import ImageStore
from components.data.pack.plan import ShardPlan, read_bucket
from data_contracts.longgrit import SCHEMA
from pixclip.data.layout import MANIFEST_NAME, WHOLE_IMAGE
from pixclip.json_files import parse_json


def write_shards(
    plan: Sequence[ShardPlan], store: ImageStore, buckets: Path, longgrit: Path
) -> None:
    """Write every shard of the plan that is missing."""
    with progress(
        "pack: write shards", total=sum(len(shard.digests) for shard in plan), unit="image"
    ) as bar:
        for shard in plan:
            if not _part_path(longgrit, shard).exists():
                rows = read_bucket(buckets, shard)
                write_shard(longgrit / shard.name, _samples(rows, store))
                # The part is written last: it says that the tar beside it is whole.
                _write_part(longgrit, shard, rows)
            bar.update(len(shard.digests))


def write_manifest(plan: Sequence[ShardPlan], longgrit: Path) -> int:
    """Join the shards' parts to the manifest and give the number of regions."""
    parts = (pq.read_table(_part_path(longgrit, shard), schema=SCHEMA) for shard in plan)
    return _write_tables(longgrit / MANIFEST_NAME, parts)


def _samples(images: Mapping[str, Sequence[Row]], store: ImageStore) -> Iterator[dict[str, Any]]:
    for image_id, rows in images.items():
        yield {"__key__": image_id, "jpg": store.read(image_id), "json": sample_json(rows)}


def _write_part(longgrit: Path, shard: ShardPlan, images: Mapping[str, Sequence[Row]]) -> None:
    rows = (manifest_row(row, shard) for regions in images.values() for row in regions)
    write_rows(_part_path(longgrit, shard), rows, SCHEMA)


def _part_path(longgrit: Path, shard: ShardPlan) -> Path:
    return longgrit / WORK_FOLDER / "parts" / f"{shard.split}-{shard.index:05d}.parquet"


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> int:
    num_rows = 0
    with written_whole(path) as partial, open_writer(partial, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
            num_rows += table.num_rows
    return num_rows


# Of a region, where its source tells them.
OPTIONAL_FIELDS = ("box_source", "point_xy", "hard_negatives")
CAPTION_FIELDS = ("object_caption", "context_caption", "long_caption", "short_caption")


def sample_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON member of an image's sample; `rows` are its regions.

    Where one of them is the image itself, its captions are those of the whole image too.
    """
    image = rows[0]
    whole = next((row for row in rows if row.get("box_source") == WHOLE_IMAGE), None)
    return {
        "image_id": image["image_sha256"],
        "caption": image["image_caption"],
        "url": image["url"],
        "width_px": image["image_width_px"],
        "height_px": image["image_height_px"],
        "subset": image["subset"],
        **({name: whole[name] for name in ("long_caption", "short_caption")} if whole else {}),
        "regions": [region_json(row) for row in rows],
    }


def region_json(row: Row) -> dict[str, Any]:
    """A region: box in pixels (x1, y1, x2, y2), mask as COCO RLE, captions and who said them."""
    return {
        "region_id": row["region_id"],
        "box_xyxy": row["box_xyxy"],
        "mask": {"size": row["mask_size"], "counts": row["mask_counts"]},
        "phrase": row["phrase"],
        **{name: row[name] for name in OPTIONAL_FIELDS if row.get(name)},
        **{name: row[name] for name in CAPTION_FIELDS},
        "provenance": {
            "mask": {"source": row["mask_source"], "score": _finite(row["mask_score"])},
            **read_provenance(row),
        },
    }


def read_provenance(row: Row) -> dict[str, dict[str, Any]]:
    """Who said what of a region, by stage.

    Raises:
        InputError: names the region whose provenance is no JSON object of objects.
    """
    try:
        stages = parse_json(row["provenance"])
        return {stage: dict(said) for stage, said in dict(stages).items()}
    except (ValueError, TypeError) as error:
        name = row["region_id"]
        raise InputError(f"captions: the provenance of region {name} is damaged: {error}") from None


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def manifest_row(row: Row, shard: ShardPlan) -> Row:
    """The manifest's row of a region."""
    return {
        "region_id": row["region_id"],
        "image_id": row["image_sha256"],
        "split": shard.split,
        "subset": row["subset"],
        "shard": shard.name,
        "key": row["image_sha256"],
        "phrase": row["phrase"],
        "box_xyxy": row["box_xyxy"],
        "mask_area_px": row["mask_area_px"],
        "image_width_px": row["image_width_px"],
        "image_height_px": row["image_height_px"],
        "image_phash": row["image_phash"],
        "mask_source": row["mask_source"],
        **{name: row[name] for name in CAPTION_FIELDS},
        "long_caption_words": count_words(row["long_caption"]),
        "short_caption_words": count_words(row["short_caption"]),
    }


def count_words(text: str) -> int:
    """Words as white space divides them."""
    return len(text.split())
