"""`report.html`, on which one looks at the data set, and `README.md`, its card.

The page is self-contained and has no scripts; charts are inline SVG. The card has the front matter
that the Hugging Face hub reads.

Captions, phrases and addresses come from strangers and language models: every value is escaped
by the template engine, and the page's own policy forbids scripts and anything from elsewhere.
"""

import html
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.core.pages import template
from components.data.pack.examples import Rejected, Sample, rejected_by_lot, samples_by_lot
from components.data.pack.settings import DATASETS, SOURCES, PackSettings
from components.data.pack.statistics import (
    AREA_EDGES,
    GRID_CELLS,
    FunnelStage,
    Statistics,
    mean_words,
    stage_order,
)
from data_contracts.candidates import OBJECT
from pixclip.data.layout import CARD_NAME, MANIFEST_NAME, REPORT_NAME, SHARDS, WHOLE_IMAGE

SAMPLE_BUDGET_BYTES, REJECTED_BUDGET_BYTES = 3_200_000, 1_000_000
TEMPLATES = Path(__file__).parent / "templates"

# Whose a region's box is, beside its name; a detector says so itself.
BOX_SOURCES = {
    WHOLE_IMAGE: "the whole picture",
    "points": "a box by rule around an annotated point",
    "published": "the source's own box",
    OBJECT: "the source's box of the whole object",
}

Item = TypeVar("Item", Sample, Rejected)


def write_report(
    longgrit: Path,
    images: Path,
    quarantines: Path,
    statistics: Statistics,
    settings: PackSettings,
) -> None:
    """Draw samples and rejected regions by lot and write the page into the data set."""
    samples = samples_by_lot(
        longgrit,
        longgrit / MANIFEST_NAME,
        quarantines,
        settings.report_images,
        settings.seed,
    )
    rejected = rejected_by_lot(quarantines, images, settings.report_rejected, settings.seed)
    page = render_report(
        statistics,
        list(within_budget(samples, SAMPLE_BUDGET_BYTES)),
        list(within_budget(rejected, REJECTED_BUDGET_BYTES)),
        settings,
    )
    (longgrit / REPORT_NAME).write_text(page, encoding="utf-8")


def render_report(
    statistics: Statistics,
    samples: list[Sample],
    rejected: list[Rejected],
    settings: PackSettings,
) -> str:
    """The page as HTML text."""
    stages = statistics.funnel
    filters = {"in_stage_order": in_stage_order}
    return template(TEMPLATES, "report.html.j2", **filters).render(
        statistics=statistics,
        samples=samples,
        rejected=rejected,
        source=SOURCES[settings.source],
        dataset=DATASETS[settings.dataset],
        licence_note=settings.licence_note,
        regions_in=stages[0].regions_in,
        most_regions=max(stage.regions_in + stage.regions_found for stage in stages),
        mean_words=mean_words(statistics.long_words),
        histograms=[
            word_histogram("Words in a long caption", statistics.long_words),
            word_histogram("Words in a short caption", statistics.short_words),
            area_histogram(statistics),
        ],
        most_outlines=max((len(sample.outlines) for sample in samples), default=0),
        box_sources=BOX_SOURCES,
        has_parts=any(o.box for sample in samples for o in sample.outlines),
        cells=cover_cells(statistics),
        num_cells=GRID_CELLS,
        reasons=reason_bars(stages),
    )


def in_stage_order(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Pairs whose first is a stage, in the order in which stages come."""
    return sorted(items, key=lambda item: stage_order(item[:1]))


def markdown_cell(text: object) -> str:
    """A text that cannot leave its cell of a Markdown table or become markup."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def within_budget(items: Iterable[Item], budget_bytes: int) -> Iterator[Item]:
    """The first items whose pictures and outlines fit in the page's share of bytes."""
    for item in items:
        paths = [o.path for o in item.outlines] if isinstance(item, Sample) else []
        picture = item.picture.data_url if item.picture else ""
        budget_bytes -= len(picture) + sum(map(len, paths))
        if budget_bytes < 0:
            return
        yield item


# https://huggingface.co/docs/hub/datasets-cards: the names of the size categories.
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"


def write_card(longgrit: Path, statistics: Statistics, settings: PackSettings) -> None:
    """Write the card into the data set."""
    text = render_card(statistics, settings)
    (longgrit / CARD_NAME).write_text(text, encoding="utf-8")


def render_card(statistics: Statistics, settings: PackSettings) -> str:
    """The card as Markdown text."""
    front = yaml.safe_dump(front_matter(statistics, settings), sort_keys=False, allow_unicode=True)
    body = template(TEMPLATES, "card.md.j2", cell=markdown_cell).render(
        statistics=statistics,
        settings=settings,
        source=SOURCES[settings.source],
        dataset=DATASETS[settings.dataset],
        long_mean=mean_words(statistics.long_words),
        short_mean=mean_words(statistics.short_words),
    )
    return f"---\n{front}---\n\n{body}"


def front_matter(statistics: Statistics, settings: PackSettings) -> dict[str, Any]:
    """What the hub shows beside the card, and which files make which split."""
    size = next((name for limit, name in SIZES if statistics.num_regions < limit), LARGEST_SIZE)
    filled = [name for name, split in statistics.splits.items() if split.num_regions]
    return {
        "pretty_name": DATASETS[settings.dataset].title,
        "license": "other",
        "license_name": f"see-the-card-{settings.source}",
        "language": ["en"],
        "task_categories": ["image-to-text", "zero-shot-image-classification"],
        "size_categories": [size],
        "tags": ["webdataset", "image", "region-captions", "masks", "fine-grained"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"{name}/{SHARDS}"} for name in filled],
            }
        ],
    }


PLOT_WIDTH, PLOT_HEIGHT = 340.0, 130.0
MIN_BINS, MAX_BINS = 9, 24
MAX_TICKS = 6


@dataclass(frozen=True)
class Bar:
    """One bar: its place in the plot and what it says."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Tick:
    """A label below the plot."""

    x: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """A chart of counts."""

    title: str
    note: str
    bars: list[Bar]
    ticks: list[Tick]
    marker_x: float | None = None  # the mean


@dataclass(frozen=True)
class Cell:
    """A square of the map of boxes; `strength` in [0, 1]."""

    x: int
    y: int
    strength: float


@dataclass(frozen=True)
class ReasonBar:
    """How many regions a step dropped for a reason."""

    step: str
    reason: str
    count: int
    percent: float  # of the longest bar


def word_histogram(title: str, words: Counter[int]) -> Histogram:
    """Lengths of captions in words, in at most `MAX_BINS` bins of equal width."""
    shortest, longest = min(words, default=0), max(words, default=0)
    padding = max(0, math.ceil((MIN_BINS - 1 - (longest - shortest)) / 2))
    low, high = max(0, shortest - padding), longest + padding
    width = max(1, math.ceil((high - low + 1) / MAX_BINS))
    num_bins = math.ceil((high - low + 1) / width)
    counts = [0] * num_bins
    for length, count in words.items():
        counts[(length - low) // width] += count
    starts = [low + index * width for index in range(num_bins)]
    spans = [f"{s} words" if width == 1 else f"{s} to {s + width - 1} words" for s in starts]
    pitch = PLOT_WIDTH / num_bins
    every = math.ceil(num_bins / MAX_TICKS)
    ticks = [Tick((i + 0.5) * pitch, str(starts[i])) for i in range(0, num_bins, every)]
    mean = mean_words(words)
    marker_x = ((mean - low) / width + 0.5 / width) * pitch if words else None
    note = f"{shortest} to {longest} words, mean {mean:.1f}"
    return Histogram(title, note, _bars(counts, spans), ticks, marker_x)


def area_histogram(statistics: Statistics) -> Histogram:
    """Shares of the image that masks fill, on a scale of doublings."""
    counts = [int(count) for count in statistics.mask_shares]
    edges = [_percent(edge) for edge in AREA_EDGES]
    spans = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    pitch = PLOT_WIDTH / len(counts)
    ticks = [Tick(i * pitch, edges[i]) for i in range(1, len(edges), 3)]
    note = "share of the image inside the mask; each bar is twice as wide a range as the one before"
    return Histogram("Mask sizes", note, _bars(counts, spans), ticks)


def cover_cells(statistics: Statistics) -> list[Cell]:
    """Where boxes lie: how many of them touch each cell of the image."""
    highest = max(1, int(statistics.cover.max()))
    return [
        Cell(x, y, round(float(count) / highest, 2))
        for y, row in enumerate(statistics.cover)
        for x, count in enumerate(row)
    ]


def reason_bars(stages: Sequence[FunnelStage]) -> list[ReasonBar]:
    """The reasons of every step, in the order of the steps, most frequent first."""
    longest = max((count for stage in stages for count in stage.reasons.values()), default=1)
    return [
        ReasonBar(stage.step, reason, count, 100 * count / longest)
        for stage in stages
        for reason, count in sorted(stage.reasons.items(), key=lambda item: (-item[1], item[0]))
    ]


def _bars(counts: Sequence[int], spans: Sequence[str]) -> list[Bar]:
    highest = max([1, *counts])
    pitch = PLOT_WIDTH / max(1, len(counts))
    gap = min(2.0, pitch / 5)
    heights = [PLOT_HEIGHT * count / highest for count in counts]
    return [
        Bar(index * pitch + gap / 2, PLOT_HEIGHT - height, pitch - gap, height, f"{span}: {count}")
        for index, (span, count, height) in enumerate(zip(spans, counts, heights, strict=True))
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 1 else "100%"
