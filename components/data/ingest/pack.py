"""Make shards and manifest from the journal: a pure function of what the URLs gave, in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.core.shards import write_shard
from components.core.tables import Row, write_rows
from components.data.ingest.download import CHECKED, FETCHED, checked_image, failure_of
from components.data.ingest.journal import Journal
from data_contracts.images import SCHEMA
from pixclip.data.layout import MANIFEST_NAME, shard_name


def write_images(
    images: Path, urls: Sequence[str], journal: Journal, images_per_shard: int
) -> list[Row]:
    """Write the shards and the manifest; gives the manifest's rows in the order of the URLs.

    The same bytes behind two URLs are stored once: the later row points to the first's member.
    """
    rows: list[Row] = []
    shard_of: dict[str, str] = {}  # sha256 -> shard
    for start in range(0, len(urls), images_per_shard):
        shard = shard_name(start // images_per_shard)
        part = [manifest_row(journal, url) for url in urls[start : start + images_per_shard]]
        fresh = [row for row in part if row["sha256"] and _is_first(row, shard, shard_of)]
        for row in part:
            row["shard"] = shard_of.get(row["sha256"])
        if fresh:
            write_shard(images / shard, _samples(journal, fresh))
        rows += part
    write_rows(images / MANIFEST_NAME, rows, SCHEMA)
    return rows


def manifest_row(journal: Journal, url: str) -> Row:
    """What became of a URL, without its shard."""
    reason, detail = failure_of(journal, url)
    row: Row = dict.fromkeys(SCHEMA.names)
    row |= {"url": url, "status": "failed" if reason else "ok", "reason": reason, "detail": detail}
    if reason:
        return row
    found = checked_image(journal.get(CHECKED, url))
    return row | {
        "sha256": found.sha256,
        "num_bytes": journal.get(FETCHED, url).size,
        "width_px": found.width_px,
        "height_px": found.height_px,
        "phash": found.phash,
        "stored_width": found.stored_width,
        "stored_height": found.stored_height,
        "orientation": found.orientation,
    }


def _is_first(row: Row, shard: str, shard_of: dict[str, str]) -> bool:
    is_first = row["sha256"] not in shard_of
    shard_of.setdefault(row["sha256"], shard)
    return is_first


def _samples(journal: Journal, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """WebDataset samples: the downloaded JPEG itself, or its upright copy."""
    for row in rows:
        fetched, checked = journal.get(FETCHED, row["url"]), journal.get(CHECKED, row["url"])
        yield {
            "__key__": row["sha256"],
            "jpg": journal.payload(checked if checked.size else fetched),
            "json": {
                name: row[name]
                for name in ("url", "sha256", "num_bytes", "width_px", "height_px", "phash")
            },
        }
