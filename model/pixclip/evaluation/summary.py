"""Answers become numbers: metrics in a subset, their intervals, and the lead over baselines.

Legend: U images, R resamples, A asked pairs of variant and metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixclip.evaluation.answers import Answers
from pixclip.evaluation.benchmark import Benchmark
from pixclip.evaluation.bootstrap import interval, resampled_means, sums_by_cluster
from pixclip.evaluation.metrics import METRICS, Floats, Metric, rows_of

MODEL = "model"  # the checkpoint itself among the variants


@dataclass(frozen=True)
class Number:
    """A share, or a difference of shares, with its 95 % interval."""

    value: float
    low: float
    high: float
    num_samples: int


Table = dict[str, dict[str, Number]]  # variant -> metric -> number


@dataclass(frozen=True)
class Numbers:
    """What came out in one subset."""

    metrics: Table
    leads: Table  # the model minus each baseline, paired


def summarise(
    benchmark: Benchmark,
    variants: Mapping[str, Answers],
    subset: str,
    *,
    num_resamples: int,
    seed: int,
) -> Numbers:
    """The numbers of `MODEL` and of every baseline in a subset, over the same resamples."""
    parts, asked = [], []
    images_U = rows_of(benchmark.subset_U, subset)
    for variant, answers in variants.items():
        for metric in METRICS.values():
            sums_U1, counts_U1 = _by_image(benchmark, answers, metric, subset)
            if counts_U1[images_U].any():
                parts.append((sums_U1[images_U], counts_U1[images_U]))
                asked.append((variant, metric.name))
    sums_UA, counts_UA = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
    means_A, num_A = sums_UA.sum(axis=0) / counts_UA.sum(axis=0), counts_UA.sum(axis=0)
    draws_RA = resampled_means(sums_UA, counts_UA, num_resamples, seed)
    own = [asked.index((MODEL, metric)) for _, metric in asked]
    return Numbers(
        _table(asked, means_A, draws_RA, num_A),
        _table(asked, means_A[own] - means_A, draws_RA[:, own] - draws_RA, num_A),
    )


def _by_image(
    benchmark: Benchmark, answers: Answers, metric: Metric, subset: str
) -> tuple[Floats, Floats]:
    """Sum and number of right answers of every image, [U, 1] each; zero where none was asked."""
    columns = answers.samples if metric.table == "samples" else answers.images
    num_images = len(benchmark.image_ids)
    if not columns:
        return np.zeros((num_images, 1)), np.zeros((num_images, 1))
    images = benchmark.image_R if metric.table == "samples" else np.arange(num_images)
    return sums_by_cluster(metric.right(columns, subset)[:, None], images, num_images)


def _table(asked: list[tuple[str, str]], means_A: Floats, draws_RA: Floats, num_A: Floats) -> Table:
    low_A, high_A = interval(draws_RA)
    table: Table = {}
    for place, (variant, metric) in enumerate(asked):
        table.setdefault(variant, {})[metric] = Number(
            float(means_A[place]), float(low_A[place]), float(high_A[place]), int(num_A[place])
        )
    return table
