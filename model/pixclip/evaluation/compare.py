"""Compare two evaluations on the same samples: a paired bootstrap over images, or a refusal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixclip.data.layout import KINDS
from pixclip.evaluation.metrics import METRICS, Floats, Metric, rows_of
from pixclip.evaluation.protocol import ALL, EvaluationError

EVALUATION_NAME = "evaluation.json"
TABLES = {"samples": "samples.parquet", "images": "images.parquet"}
KEYS = {"samples": "region_id", "images": "image_id"}
KIND = "kind"  # column with the kind of a region, where there are several


@dataclass(frozen=True)
class Comparison:
    """Candidate minus champion in a metric, and the 95 % interval of that difference."""

    difference: float
    low: float
    high: float
    num_samples: int


def compare(
    champion: Path, candidate: Path, metric: str, *, num_resamples: int = 2000, seed: int = 0
) -> Comparison:
    """How much better the candidate is, on the same questions, images drawn together.

    Both paths are folders with `evaluation.json`, `samples.parquet` and `images.parquet`.
    `metric` is a name such as `scene_accuracy`, or one of a subset such as
    `held_out_objects.mask_to_text_r1`.

    Raises:
        EvaluationError: a file is missing or damaged, the metric is unknown or was never asked,
            or protocol, data set or samples differ, so that the numbers do not compare.
    """
    subset, known = parse_metric(metric)
    _require_same(champion, candidate)
    old, new = (_read_table(folder, known, subset) for folder in (champion, candidate))
    if old["key"] != new["key"] or old["label"].tolist() != new["label"].tolist():
        raise EvaluationError(
            f"{champion} and {candidate} do not hold the same {known.table}; evaluate both anew"
        )
    rows = rows_of(new["label"], subset) & ~np.isnan(old["right"]) & ~np.isnan(new["right"])
    if not rows.any():
        raise EvaluationError(
            f"no sample of {candidate} answers {metric}; its subsets are "
            f"{', '.join(sorted({ALL, *new['label'].tolist()} - {''}))}"
        )
    difference_N = (new["right"] - old["right"])[rows]
    _, clusters_N = np.unique(new["image"][rows], return_inverse=True)
    sums, counts = sums_by_cluster(difference_N[:, None], clusters_N, int(clusters_N.max()) + 1)
    low, high = interval(resampled_means(sums, counts, num_resamples, seed))
    return Comparison(float(difference_N.mean()), float(low[0]), float(high[0]), int(rows.sum()))


def parse_metric(name: str) -> tuple[str, Metric]:
    """Subset and metric of a name like `scene_accuracy` or `seen_objects.scene_accuracy`.

    Raises:
        EvaluationError: no such metric.
    """
    subset, _, bare = name.rpartition(".")
    if bare not in METRICS:
        raise EvaluationError(f"no metric '{name}'; the metrics are {', '.join(METRICS)}")
    return subset or ALL, METRICS[bare]


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of a folder's `evaluation.json`.

    Raises:
        EvaluationError: it is missing, damaged, or no evaluation.
    """
    path = folder / EVALUATION_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["protocol_digest"], content["data"]["dataset"], content["data"]["num_regions"]
        content["metrics"], content["num_samples"]
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}; evaluate first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is no evaluation: {error!r}; evaluate again") from None
    return dict(content)


def _require_same(champion: Path, candidate: Path) -> None:
    old, new = read_evaluation(champion), read_evaluation(candidate)
    for what, first, second in (
        ("protocol", old["protocol_digest"], new["protocol_digest"]),
        ("data set", old["data"]["dataset"], new["data"]["dataset"]),
    ):
        if first != second:
            raise EvaluationError(
                f"the numbers of {champion} and {candidate} do not compare: their {what}s differ "
                f"({first} and {second}); evaluate the champion's checkpoint on the candidate's"
            )


def _read_table(folder: Path, metric: Metric, subset: str) -> dict[str, Any]:
    """Keys, images, subsets (or kinds) and answers of questions, in the order of the keys."""
    path, key = folder / TABLES[metric.table], KEYS[metric.table]
    column, label = metric.column_for(subset), KIND if subset in KINDS else "subset"
    try:
        table = pq.read_table(path, columns=list({key, "image_id", label, column}))
        table = table.sort_by(key)
        columns = {column: table[column].cast(pa.float64()).to_numpy()}
        return {
            "key": table[key].to_pylist(),
            "image": np.array(table["image_id"].to_pylist(), dtype=str),
            "label": np.array(table[label].to_pylist(), dtype=str),
            "right": metric.right(columns, subset),
        }
    except (OSError, KeyError, pa.ArrowException) as error:
        raise EvaluationError(f"cannot read {column} of {path}: {error}") from None


CONFIDENCE = 0.95
MAX_WEIGHTS = 2**23  # drawn at a time: 64 MB


# Bootstrap intervals over images: regions of one image are no independent samples.
#
# Images are drawn with replacement and bring all their questions along. The candidates stay the
# whole pool: an interval speaks of other questions of this kind, not of larger pools.


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
