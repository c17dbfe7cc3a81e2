"""What an evaluation leaves: numbers as JSON, every question's answer as Parquet.

Numbers are metrics in a subset, their intervals, and the lead over baselines.
Legend: U images, R resamples, A asked pairs of variant and metric.

evaluation.json   protocol, checkpoint, data and all numbers, by subset
metrics.json      the main numbers, flat, for tools that show metrics
samples.parquet   one row a region, in the order of their ids; its `kind` where there are several
images.parquet    one row an image
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixclip.data.layout import KINDS
from pixclip.evaluation.benchmark import Answers, Benchmark, Embedded, answer, chance
from pixclip.evaluation.compare import (
    EVALUATION_NAME,
    KIND,
    TABLES,
    interval,
    resampled_means,
    sums_by_cluster,
)
from pixclip.evaluation.metrics import IN_KIND, IN_SUBSET, METRICS, Columns, Floats, Metric
from pixclip.evaluation.protocol import ALL, SCENE_ACCURACY, TOPS, Protocol, Question

METRICS_NAME = "metrics.json"
MAIN_METRICS = (
    SCENE_ACCURACY,
    *(
        question.recall_at(top)
        for question in (Question.MASK_TO_TEXT, Question.TEXT_TO_MASK)
        for top in TOPS
    ),
    *(question.recall_at(1) for question in (Question.IMAGE_TO_TEXT, Question.TEXT_TO_IMAGE)),
)


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


@dataclass(frozen=True)
class Results:
    """Everything an evaluation found."""

    benchmark: Benchmark
    answers: dict[str, Answers]  # by variant
    numbers: dict[str, Numbers]  # by subset
    chances: dict[str, dict[str, float]]  # by subset, then metric


def evaluate_embeddings(
    benchmark: Benchmark,
    embedded: Mapping[str, Embedded],
    texts_TD: Any,
    *,
    num_resamples: int,
    seed: int,
) -> Results:
    """Ask every variant the benchmark's questions.

    `texts_TD` embeds `benchmark.texts`, for variants without texts of their own.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    answers = {
        name: answer(benchmark, vectors, texts_TD if vectors.texts_TD is None else vectors.texts_TD)
        for name, vectors in embedded.items()
    }
    numbers = {
        subset: summarise(benchmark, answers, subset, num_resamples=num_resamples, seed=seed)
        for subset in benchmark.subsets
    }
    chances = {subset: chance(benchmark, subset) for subset in benchmark.subsets}
    return Results(benchmark, answers, numbers, chances)


def write_results(
    folder: Path,
    results: Results,
    protocol: Protocol,
    *,
    checkpoint: str,
    manifest: str,
    version: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Write all files and give the main metrics.

    `checkpoint` and `manifest` are the SHA-256 of the weights and of the data set's manifest;
    `version` says which published version of the data set it is, if that is known.
    What makes numbers comparable is `data.dataset`, the digest of all that was asked: a new
    version of a data set whose benchmark is the same keeps it.
    """
    benchmark = results.benchmark
    content = {
        "protocol": protocol.id,
        "protocol_digest": protocol.digest,
        "checkpoint": checkpoint,
        "data": {
            "dataset": benchmark.digest,
            "split": protocol.split,
            "num_regions": len(benchmark.region_ids),
            "num_images": len(benchmark.image_ids),
            "manifest": manifest,
            "version": dict(version or {}),
        },
        **_numbers(results),
    }
    metrics = main_metrics(results)
    _write_json(folder / EVALUATION_NAME, content)
    _write_json(folder / METRICS_NAME, metrics)
    answers = results.answers[MODEL]
    samples = {
        "region_id": benchmark.region_ids,
        "image_id": [benchmark.image_ids[place] for place in benchmark.image_R],
        "subset": benchmark.region_subsets.tolist(),
        **({KIND: benchmark.kind_R.tolist()} if benchmark.kind_R.any() else {}),
    }
    images = {"image_id": benchmark.image_ids, "subset": benchmark.subset_U.tolist()}
    _write_table(folder / TABLES["samples"], samples, answers.samples)
    _write_table(folder / TABLES["images"], images, answers.images)
    return metrics


def main_metrics(results: Results) -> dict[str, float]:
    """The main metrics by `metric`, `subset.metric` and `baseline.metric`."""
    found: dict[str, float] = {}
    for subset, numbers in results.numbers.items():
        found |= _main(numbers.metrics[MODEL], "" if subset == ALL else f"{subset}.")
    for variant, table in results.numbers[ALL].metrics.items():
        if variant != MODEL:
            found |= _main(table, f"{variant}.")
    return found


def _main(table: Mapping[str, Number], prefix: str) -> dict[str, float]:
    return {prefix + name: round(table[name].value, 6) for name in MAIN_METRICS if name in table}


def _numbers(results: Results) -> dict[str, Any]:
    by_subset = results.numbers.items()
    baselines = [name for name in results.answers if name != MODEL]
    return {
        "metrics": {subset: _values(n.metrics[MODEL]) for subset, n in by_subset},
        "intervals": {subset: _spans(n.metrics[MODEL]) for subset, n in by_subset},
        "num_samples": {
            subset: {name: number.num_samples for name, number in n.metrics[MODEL].items()}
            for subset, n in by_subset
        },
        "chance": {
            subset: {name: round(value, 6) for name, value in values.items()}
            for subset, values in results.chances.items()
        },
        "baselines": {
            name: {subset: _values(n.metrics[name]) for subset, n in by_subset}
            for name in baselines
        },
        "baseline_intervals": {
            name: {subset: _spans(n.metrics[name]) for subset, n in by_subset} for name in baselines
        },
        "leads": {
            name: {subset: _leads(n.leads, name) for subset, n in by_subset} for name in baselines
        },
    }


def _values(table: Mapping[str, Number]) -> dict[str, float]:
    return {name: round(number.value, 6) for name, number in table.items()}


def _spans(table: Mapping[str, Number]) -> dict[str, list[float]]:
    return {name: [round(n.low, 6), round(n.high, 6)] for name, n in table.items()}


def _leads(leads: Table, baseline: str) -> dict[str, list[float]]:
    """The model's lead over a baseline: difference, lower and upper end of its interval."""
    return {
        name: [round(n.value, 6), round(n.low, 6), round(n.high, 6)]
        for name, n in leads[baseline].items()
    }


def _write_table(path: Path, keys: Mapping[str, list[str]], columns: Columns) -> None:
    table: dict[str, pa.Array] = {name: pa.array(values) for name, values in keys.items()}
    for name, values in columns.items():
        kind = pa.int32() if name.endswith(("_rank", IN_SUBSET, IN_KIND)) else pa.bool_()
        filled = np.nan_to_num(values).astype(np.int64)
        table[name] = pa.array(filled, mask=np.isnan(values)).cast(kind)
    pq.write_table(pa.table(table).sort_by(next(iter(keys))), path, compression="zstd")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


MODEL = "model"  # the checkpoint itself among the variants


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
    images_U = benchmark.images_of(subset)
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
    num_images, is_of_regions = len(benchmark.image_ids), metric.table == "samples"
    if not columns or (subset in KINDS and not is_of_regions):
        return np.zeros((num_images, 1)), np.zeros((num_images, 1))
    images = benchmark.image_R if is_of_regions else np.arange(num_images)
    asked = benchmark.regions_of(subset) if is_of_regions else benchmark.images_of(subset)
    right_N = np.where(asked, metric.right(columns, subset), np.nan)
    return sums_by_cluster(right_N[:, None], images, num_images)


def _table(asked: list[tuple[str, str]], means_A: Floats, draws_RA: Floats, num_A: Floats) -> Table:
    low_A, high_A = interval(draws_RA)
    table: Table = {}
    for place, (variant, metric) in enumerate(asked):
        table.setdefault(variant, {})[metric] = Number(
            float(means_A[place]), float(low_A[place]), float(high_A[place]), int(num_A[place])
        )
    return table
