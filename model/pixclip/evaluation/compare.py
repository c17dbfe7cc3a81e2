"""Compare two evaluations on the same samples: a paired bootstrap, or a refusal that says why."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixclip.evaluation.bootstrap import interval, resampled_means, sums_by_cluster
from pixclip.evaluation.errors import EvaluationError
from pixclip.evaluation.metrics import METRICS, Metric, rows_of
from pixclip.evaluation.protocol import ALL

EVALUATION_NAME = "evaluation.json"
TABLES = {"samples": "samples.parquet", "images": "images.parquet"}
KEYS = {"samples": "region_id", "images": "image_id"}


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
    if old["key"] != new["key"] or old["subset"].tolist() != new["subset"].tolist():
        raise EvaluationError(
            f"{champion} and {candidate} do not hold the same {known.table}; evaluate both anew"
        )
    rows = rows_of(new["subset"], subset) & ~np.isnan(old["right"]) & ~np.isnan(new["right"])
    if not rows.any():
        raise EvaluationError(
            f"no sample of {candidate} answers {metric}; its subsets are "
            f"{', '.join(sorted({ALL, *new['subset'].tolist()} - {''}))}"
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
    """Keys, images, subsets and answers of a folder's questions, in the order of the keys."""
    path, key = folder / TABLES[metric.table], KEYS[metric.table]
    column = metric.column_for(subset)
    try:
        table = pq.read_table(path, columns=list({key, "image_id", "subset", column}))
        table = table.sort_by(key)
        columns = {column: table[column].cast(pa.float64()).to_numpy()}
        return {
            "key": table[key].to_pylist(),
            "image": np.array(table["image_id"].to_pylist(), dtype=str),
            "subset": np.array(table["subset"].to_pylist(), dtype=str),
            "right": metric.right(columns, subset),
        }
    except (OSError, KeyError, pa.ArrowException) as error:
        raise EvaluationError(f"cannot read {column} of {path}: {error}") from None
