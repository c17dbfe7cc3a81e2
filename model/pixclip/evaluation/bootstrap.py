"""Bootstrap intervals over images: regions of one image are no independent samples.

Images are drawn with replacement and bring all their questions along. The candidates stay the
whole pool: an interval speaks of other questions of this kind, not of larger pools.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pixclip.evaluation.metrics import Floats

CONFIDENCE = 0.95
MAX_WEIGHTS = 2**23  # drawn at a time: 64 MB


def sums_by_cluster(
    right_NM: Floats, clusters_N: npt.NDArray[np.int64], num_clusters: int
) -> tuple[Floats, Floats]:
    """Sums and numbers of the answers by cluster, [C, M] each; NaN is no answer."""
    shape = (num_clusters, right_NM.shape[1])
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, clusters_N, np.nan_to_num(right_NM))
    np.add.at(counts, clusters_N, ~np.isnan(right_NM))
    return sums, counts


def resampled_means(sums_CM: Floats, counts_CM: Floats, num_resamples: int, seed: int) -> Floats:
    """Means over the answers of clusters drawn with replacement; [R, M].

    NaN where none of the drawn clusters has an answer. Columns are drawn together, so the
    difference of two columns is a paired one.
    """
    random = np.random.default_rng(seed)
    num_clusters = len(sums_CM)
    rows = max(1, MAX_WEIGHTS // max(1, num_clusters))
    parts = []
    for start in range(0, num_resamples, rows):
        weights_RC = _draw(random, min(rows, num_resamples - start), num_clusters)
        with np.errstate(invalid="ignore"):
            parts.append((weights_RC @ sums_CM) / (weights_RC @ counts_CM))
    return np.concatenate(parts)


def _draw(random: np.random.Generator, num_draws: int, num_clusters: int) -> Floats:
    """How often each cluster is drawn; [R, C]."""
    drawn = (random.integers(num_clusters, size=num_clusters) for _ in range(num_draws))
    counts: Sequence[npt.NDArray[np.int64]] = [
        np.bincount(draw, minlength=num_clusters) for draw in drawn
    ]
    return np.stack(counts).astype(np.float64)


def interval(means_RM: Floats) -> tuple[Floats, Floats]:
    """Lower and upper end of the percentile interval of each column; [M] each."""
    tail = (1 - CONFIDENCE) / 2
    is_empty = np.isnan(means_RM).all(axis=0)
    low, high = np.nanquantile(np.where(is_empty, 0, means_RM), [tail, 1 - tail], axis=0)
    return np.where(is_empty, np.nan, low), np.where(is_empty, np.nan, high)
