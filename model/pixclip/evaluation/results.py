"""What an evaluation leaves: numbers as JSON, every question's answer as Parquet.

evaluation.json   protocol, checkpoint, data and all numbers, by subset
metrics.json      the main numbers, flat, for tools that show metrics
samples.parquet   one row a region, in the order of their ids
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

from pixclip.evaluation.answers import Answers, Embedded, answer
from pixclip.evaluation.benchmark import Benchmark
from pixclip.evaluation.chance import chance
from pixclip.evaluation.compare import EVALUATION_NAME, TABLES
from pixclip.evaluation.metrics import Columns
from pixclip.evaluation.protocol import ALL, Protocol
from pixclip.evaluation.summary import MODEL, Number, Numbers, Table, summarise

METRICS_NAME = "metrics.json"
MAIN_METRICS = (
    "scene_accuracy",
    "mask_to_text_r1",
    "mask_to_text_r5",
    "mask_to_text_r10",
    "text_to_mask_r1",
    "text_to_mask_r5",
    "text_to_mask_r10",
    "image_to_text_r1",
    "text_to_image_r1",
)


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
    """Ask every variant the benchmark's questions; `texts_TD` embeds `benchmark.texts`.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    answers = {name: answer(benchmark, vectors, texts_TD) for name, vectors in embedded.items()}
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
        kind = pa.int32() if name.endswith(("_rank", "_in_subset")) else pa.bool_()
        filled = np.nan_to_num(values).astype(np.int64)
        table[name] = pa.array(filled, mask=np.isnan(values)).cast(kind)
    pq.write_table(pa.table(table).sort_by(next(iter(keys))), path, compression="zstd")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
