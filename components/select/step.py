"""`pixclip select`: from source records to region rows in groups.

Reads GRIT Parquet by pieces of a row group, so that 20 M records fit in bounded memory, and gives
every region that is dropped one reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.kernel.errors import GateError
from components.kernel.progress import progress
from components.kernel.step import In, Metrics, Out, step
from components.kernel.tables import Row
from components.kernel.tally import tally, write_quarantine
from components.select.duplicates import find_repeats
from components.select.output import GroupWriter, dropped_rows, in_parts, name_records, region_table
from components.select.regions import flatten_regions, lengths
from components.select.settings import SelectSettings
from components.select.source import count_records, read_records, require_grit
from components.select.verdict import RULES, judge


@dataclass
class Counts:
    """What was met so far."""

    records: int = 0
    records_without_regions: int = 0
    regions: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@step(image="data")
def select(grit: In, records: Out, quarantine: Out, settings: SelectSettings) -> Metrics:
    """Keep the regions that are worth downloading, in groups; say why the others are not."""
    paths = require_grit(grit)
    counts, writer = Counts(), GroupWriter(records)
    records.mkdir(parents=True, exist_ok=True)
    write_quarantine(quarantine, sift(paths, writer, counts, settings))
    writer.close()
    if not counts.kept:
        raise GateError(
            f"select kept none of {counts.regions} regions in {counts.records} records",
            counts.reasons,
            "Look at the source, or loosen the limits under `select` in the params file."
            if counts.regions
            else "No record of the source has a region (`ref_exps`).",
        )
    return tally(
        counts.regions,
        counts.kept,
        counts.reasons,
        records_in=counts.records,
        records_without_regions=counts.records_without_regions,
        groups=writer.num_groups,
    )


def sift(
    paths: Sequence[Path], writer: GroupWriter, counts: Counts, settings: SelectSettings
) -> Iterator[Row]:
    """Write the kept regions on the way and give the dropped ones, batch by batch."""
    history = find_repeats(paths)
    with progress("select", count_records(paths), unit="record") as bar:
        for batch in read_records(paths, settings.records_per_group):
            regions = flatten_regions(batch.rows)
            verdict = judge(regions, history, settings)
            record_ids = name_records(regions, verdict.has_unique_id, batch.first_record)
            kept = verdict.kept
            for rows in in_parts(kept):
                writer.write(batch.group, region_table(regions, rows, record_ids))
            counts.records += batch.rows.num_rows
            counts.records_without_regions += int(
                (lengths(batch.rows.column("ref_exps")) == 0).sum()
            )
            counts.regions += len(regions)
            counts.kept += len(kept)
            counts.reasons.update(RULES[number].reason for number in verdict.rule if number >= 0)
            yield from dropped_rows(regions, verdict, record_ids, settings)
            bar.update(batch.rows.num_rows)
