"""One sample of the data set: an image with the texts and masks of its regions."""

import math
from collections.abc import Sequence
from typing import Any

from components.kernel.errors import InputError
from components.kernel.tables import Row
from components.pack.plan import ShardPlan
from pixclip.json_files import parse_json

CAPTION_FIELDS = ("object_caption", "context_caption", "long_caption", "short_caption")


def sample_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON member of an image's sample; `rows` are its regions."""
    image = rows[0]
    return {
        "image_id": image["image_sha256"],
        "caption": image["image_caption"],
        "url": image["url"],
        "width_px": image["image_width_px"],
        "height_px": image["image_height_px"],
        "subset": image["subset"],
        "regions": [region_json(row) for row in rows],
    }


def region_json(row: Row) -> dict[str, Any]:
    """A region: box in pixels (x1, y1, x2, y2), mask as COCO RLE, captions and who said them."""
    return {
        "region_id": row["region_id"],
        "box_xyxy": row["box_xyxy"],
        "mask": {"size": row["mask_size"], "counts": row["mask_counts"]},
        "phrase": row["phrase"],
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
