"""`pixclip ingest`: every image of a group, downloaded once and checked.

    pixclip ingest --records records/00000 --images images/00000 --quarantine q.parquet

Killed at any moment and started again, it asks only for what it has no answer to: received bytes
and permanent failures are kept in the draft's journal; transient failures (time-outs, 429, 5xx)
are asked again. The journal moves along when settings or records change (`reuse.py`).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.counts import REASON_PREFIX, quarantine_row, region_counts, write_quarantine
from components.core.errors import GateError
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import Row, read_batches, read_rows
from components.data.ingest.journal import Journal
from components.data.ingest.settings import IngestSettings
from data_contracts.reasons import IngestReason

if TYPE_CHECKING:
    from components.data.ingest.addresses import Resolver


def judge(metrics: Mapping[str, int | float], settings: IngestSettings) -> None:
    """Refuse a group of which too much is lost, or of which too little was answered.

    Raises:
        GateError: with the reasons, counted in regions.
    """
    reasons = {
        name.removeprefix(REASON_PREFIX): int(count)
        for name, count in metrics.items()
        if name.startswith(REASON_PREFIX)
    }
    num_urls, num_ok = int(metrics["urls"]), int(metrics["urls_ok"])
    require_success(num_ok, num_urls, reasons, settings.min_success_rate)
    num_unanswered, share = int(metrics["urls_unanswered"]), settings.max_unanswered_share
    num_allowed = max_unanswered(num_urls, share)
    if num_unanswered > num_allowed:
        raise GateError(
            f"ingest: {num_unanswered} of {num_urls} URLs were given up without an answer, "
            f"ingest.max_unanswered_share of {share:.0%} allows {num_allowed} of so many",
            reasons,
            "Look at the network and start it again: it asks these again and no others. If their "
            "hosts are gone for good, raise the share: nothing that was received is asked again.",
        )


def max_unanswered(num_urls: int, share: float) -> int:
    """How many of so many URLs may stay without an answer.

    Of a few URLs some are silent by chance: a standard deviation more than the share is let
    through, but never all of them.
    """
    if share == 1:
        return num_urls
    by_chance = math.sqrt(num_urls * share * (1 - share))
    return max(min(int(num_urls * share + by_chance), num_urls - 1), 0)


@step(image="data", gate=judge, work=Work.PORTABLE)
def ingest(records: In, images: Out, quarantine: Out, settings: IngestSettings) -> Metrics:
    """Download every image of a group once, check it and pack it into shards."""
    return ingest_images(records, images, quarantine, settings)


def ingest_images(
    records: Path,
    images: Path,
    quarantine: Path,
    settings: IngestSettings,
    resolver: "Resolver | None" = None,
) -> Metrics:
    """The step, with a seam for the resolver of host names.

    Raises:
        GateError: fewer URLs gave an image than `min_success_rate` asks for.
        WorldError: the network, the disk or the credentials fail.
    """
    from components.data.ingest.download import (  # aiohttp
        download_all,
        failure_of,
        journal_path,
        num_unanswered,
    )
    from components.data.ingest.pack import write_images

    urls = distinct_urls(records)
    with Journal(journal_path(images)) as journal:
        download_all(urls, journal, settings, resolver)
        failures = Counter(failure_of(journal, url)[0] for url in urls)
        num_ok = failures.pop("", 0)
        require_success(num_ok, len(urls), failures, settings.min_success_rate)
        unanswered = num_unanswered(journal, urls)
        manifest = write_images(images, urls, journal, settings.images_per_shard)
    reasons, num_regions = _write_lost_regions(records, manifest, quarantine)
    return region_counts(
        num_regions,
        num_regions - reasons.total(),
        reasons,
        urls=len(urls),
        urls_ok=num_ok,
        urls_unanswered=unanswered,
        link_rot=round(1 - num_ok / len(urls), 4) if urls else 0.0,
        bytes=sum(row["num_bytes"] or 0 for row in manifest),
    )


def distinct_urls(records: Path) -> list[str]:
    """The URLs of the records, each once, in the order of their first record."""
    seen: dict[str, None] = {}
    for batch in read_batches(records, ["url"]):
        seen.update(dict.fromkeys(batch.column("url").to_pylist()))
    return list(seen)


def require_success(
    num_ok: int, num_urls: int, failures: Mapping[str, int], min_success_rate: float
) -> None:
    """Refuse a group of which too much is lost.

    Raises:
        GateError: with the histogram of reasons.
    """
    if num_ok < min_success_rate * num_urls:
        raise GateError(
            f"ingest: only {num_ok} of {num_urls} URLs gave an image, "
            f"ingest.min_success_rate asks for {min_success_rate:.0%}",
            failures,
            _advice(failures),
        )


def _advice(failures: Mapping[str, int]) -> str:
    if failures.get(IngestReason.FILE_NOT_ALLOWED) or failures.get(IngestReason.FILE_MISSING):
        return "Set ingest.file_root to the folder that the images of file:/// URLs lie in."
    return "Start it again to retry the transient failures; lower the rate if the list is old."


def _write_lost_regions(
    records: Path, manifest: Sequence[Row], quarantine: Path
) -> tuple[Counter[str], int]:
    """Quarantine every region of a lost image; gives the reasons' counts and all regions."""
    lost = {row["url"]: row for row in manifest if row["status"] != "ok"}
    counts: Counter[str] = Counter()
    write_quarantine(quarantine, _lost_regions(records, lost, counts))
    num_regions = counts.pop("", 0) + counts.total()
    return counts, num_regions


def _lost_regions(records: Path, lost: Mapping[str, Row], counts: Counter[str]) -> Iterator[Row]:
    """The lost regions; counts every region by its reason, "" for one that goes on."""
    for row in read_rows(records):
        failure = lost.get(row["url"])
        counts[failure["reason"] if failure else ""] += 1
        if failure:
            yield quarantine_row("ingest", row, failure["reason"], failure["detail"])
