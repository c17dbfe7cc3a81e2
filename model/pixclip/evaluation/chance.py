"""What guessing would reach: the metrics of a model that ranks candidates by lot."""

import numpy as np

from pixclip.evaluation.answers import scenes
from pixclip.evaluation.benchmark import NO_TEXT, Benchmark, Indices
from pixclip.evaluation.metrics import Floats, rows_of
from pixclip.evaluation.protocol import TOPS


def chance(benchmark: Benchmark, subset: str) -> dict[str, float]:
    """The expected value of every metric that a subset asks, by name."""
    found: dict[str, float] = {}
    in_subset_R = rows_of(benchmark.region_subsets, subset)
    shares = [
        1 / len(set(benchmark.long_R[rows].tolist()))
        for rows in scenes(benchmark)
        for _ in range(in_subset_R[rows].sum())
    ]
    if shares:
        found["scene_accuracy"] = float(np.mean(shares))
    for forth, back, text_N in (
        ("mask_to_text", "text_to_mask", benchmark.long_R[in_subset_R]),
        ("short_mask_to_text", "short_text_to_mask", benchmark.short_R[in_subset_R]),
        ("image_to_text", "text_to_image", _captions(benchmark, subset)),
    ):
        if len(text_N):
            found |= _recalls(forth, back, text_N)
    return found


def _captions(benchmark: Benchmark, subset: str) -> Indices:
    asks_U = rows_of(benchmark.subset_U, subset) & (benchmark.caption_U != NO_TEXT)
    return np.asarray(benchmark.caption_U[asks_U])


def _recalls(forth: str, back: str, text_N: Indices) -> dict[str, float]:
    _, place_N, counts_L = np.unique(text_N, return_inverse=True, return_counts=True)
    found = {f"{forth}_r{top}": min(1.0, top / len(counts_L)) for top in TOPS}
    for top in TOPS:
        found[f"{back}_r{top}"] = float(_hit(len(text_N), counts_L, top)[place_N].mean())
    return found


def _hit(num_candidates: int, num_right_L: Indices, top: int) -> Floats:
    """The probability that one of the right candidates is among the first `top` by lot."""
    missed = np.ones(len(num_right_L))
    for drawn in range(min(top, num_candidates)):
        left = num_candidates - drawn
        missed *= np.maximum(left - num_right_L, 0) / left
    return 1 - missed
