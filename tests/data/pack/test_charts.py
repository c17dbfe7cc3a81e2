from collections import Counter

import pytest

from components.data.pack.report import (
    MAX_BINS,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    area_histogram,
    reason_bars,
    word_histogram,
)
from components.data.pack.statistics import FunnelStage, Statistics


def counted(chart):
    return sum(int(bar.title.rsplit(": ", 1)[1]) for bar in chart.bars)


@pytest.mark.parametrize(
    "lengths", [[40], [30, 31, 60], list(range(12, 300)), [1, 400], [0, 0, 3], []]
)
def test_a_histogram_counts_every_length_once_and_stays_in_its_plot(lengths):
    chart = word_histogram("Words", Counter(lengths))
    assert counted(chart) == len(lengths)
    assert len(chart.bars) <= MAX_BINS
    assert all(bar.x >= 0 and bar.x + bar.width <= PLOT_WIDTH + 1e-6 for bar in chart.bars)
    assert all(bar.y >= 0 and bar.y + bar.height == PLOT_HEIGHT for bar in chart.bars)
    if lengths:
        assert max(bar.height for bar in chart.bars) == PLOT_HEIGHT
        assert 0 <= chart.marker_x <= PLOT_WIDTH


def test_the_mean_stands_over_its_bar():
    chart = word_histogram("Words", Counter({40: 5}))
    (bar,) = [bar for bar in chart.bars if bar.height]
    assert chart.marker_x == pytest.approx(bar.x + bar.width / 2)


def test_mask_sizes_are_labelled_by_their_shares():
    statistics = Statistics()
    statistics.mask_shares[-1] = 3
    chart = area_histogram(statistics)
    assert chart.bars[-1].title == "50% to 100%: 3"


def test_the_most_frequent_reason_of_a_step_comes_first_and_the_longest_bar_is_full():
    stages = [
        FunnelStage("ingest", 100, Counter(dead=3, slow=8)),
        FunnelStage("describe", 89, Counter(wrong=4)),
    ]
    bars = [(bar.step, bar.reason, bar.percent) for bar in reason_bars(stages)]
    assert bars == [
        ("ingest", "slow", 100.0),
        ("ingest", "dead", 37.5),
        ("describe", "wrong", 50.0),
    ]
