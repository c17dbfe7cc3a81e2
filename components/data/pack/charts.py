"""Geometry of the report's charts; the template draws them as inline SVG."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from components.data.pack.statistics import AREA_EDGES, FunnelStage, Statistics, mean_words

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
