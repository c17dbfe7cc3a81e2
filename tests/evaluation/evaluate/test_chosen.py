import numpy as np
import torch
from torch.nn import functional as F

from components.evaluation.evaluate.examples import by_lot, show, worst
from pixclip.evaluation.benchmark import BenchmarkBuilder, Embedded, answer
from tests.pixclip.evaluation.scenes import SUBSETS, scene, scenes


def benchmark_of(samples):
    builder = BenchmarkBuilder()
    for sample in samples:
        builder.add(sample)
    return builder.build()


BENCHMARK = benchmark_of([*(scene(n, subset=SUBSETS[0]) for n in range(30, 50)), *scenes(8)])


def test_the_lot_takes_subsets_in_turn_and_every_image_once():
    regions = by_lot(BENCHMARK, 8, seed=3)
    images = BENCHMARK.image_R[regions]
    assert len(set(images.tolist())) == 8
    assert sorted(BENCHMARK.subset_U[images].tolist()) == [SUBSETS[1]] * 4 + [SUBSETS[0]] * 4
    assert by_lot(BENCHMARK, 8, seed=3) == regions != by_lot(BENCHMARK, 8, seed=4)
    assert by_lot(BENCHMARK, 0, seed=3) == []
    assert len(by_lot(BENCHMARK, 99, seed=3)) == len(BENCHMARK.image_ids)


def test_the_worst_mistakes_come_first_one_an_image():
    ranks = np.ones(len(BENCHMARK.region_ids))
    ranks[[0, 1, 5, 9]] = [40, 30, 20, 10]
    assert worst(BENCHMARK, {"mask_to_text_rank": ranks}, 9) == [0, 5, 9]
    assert worst(BENCHMARK, {"mask_to_text_rank": ranks}, 1) == [0]
    assert worst(BENCHMARK, {"mask_to_text_rank": np.ones(len(ranks))}, 5) == []


def test_what_is_shown_agrees_with_the_ranks():
    random = torch.Generator().manual_seed(0)
    texts_TD = F.normalize(torch.randn(len(BENCHMARK.texts), 6, generator=random), dim=-1)
    noise = torch.randn(len(BENCHMARK.region_ids), 6, generator=random)
    own = texts_TD[torch.from_numpy(BENCHMARK.long_R)]
    embedded = Embedded(F.normalize(own + 0.3 * noise, dim=-1))
    samples = answer(BENCHMARK, embedded, texts_TD).samples
    shown = show(range(20), BENCHMARK, samples, embedded, texts_TD)
    assert {item.text_rank for item in shown} != {1}
    for item in shown:
        for found, rank in ((item.texts, item.text_rank), (item.regions, item.region_rank)):
            places = [place for place, one in enumerate(found, 1) if one.is_right]
            assert places == ([rank] if rank <= 5 else [])
            similarities = [one.similarity for one in found]
            assert similarities == sorted(similarities, reverse=True)
