"""Every number against a plain double loop over regions, texts and images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixclip.evaluation.benchmark import BenchmarkBuilder, Embedded, answer, chance
from pixclip.evaluation.metrics import METRICS
from pixclip.evaluation.protocol import EvaluationError
from pixclip.evaluation.results import MODEL, summarise
from tests.pixclip.evaluation.scenes import SUBSETS, scene, scenes

WIDTH = 8


@pytest.fixture(scope="module")
def asked():
    """A benchmark with repeated short captions, an image without a caption, and embeddings."""
    samples = [*scenes(14), scene(20, subset=SUBSETS[0], caption=" ")]
    builder = BenchmarkBuilder()
    for sample in samples:
        builder.add(sample)
    benchmark = builder.build()
    random = torch.Generator().manual_seed(0)

    def vectors(number):
        return F.normalize(torch.randn(number, WIDTH, generator=random), dim=-1)

    texts_TD = vectors(len(benchmark.texts))
    pull = 0.8 * texts_TD[torch.from_numpy(benchmark.long_R)]
    regions_RD = F.normalize(vectors(len(benchmark.region_ids)) + pull, dim=-1)
    embedded = Embedded(regions_RD, vectors(len(benchmark.image_ids)))
    return samples, benchmark, embedded, texts_TD


def questions(samples, embedded, benchmark, texts_TD):
    """(subset, image, long, short, vector) of every region, and (subset, caption, vector)."""
    text = {said: texts_TD[place] for place, said in enumerate(benchmark.texts)}
    regions, place = [], 0
    for image, sample in enumerate(samples):
        for region in sample.regions:
            said = region.long_caption, region.short_caption
            regions.append((sample.subset, image, *said, embedded.regions_RD[place]))
            place += 1
    images = [
        (sample.subset, sample.caption, embedded.images_UD[image])
        for image, sample in enumerate(samples)
        if sample.caption.strip()
    ]
    return regions, images, text


def forth(pool, text, top):
    """Share of pictures whose own text is among the first `top`; `pool` has (text, vector)."""
    hits = []
    for own, vector in pool:
        others = {said for said, _ in pool} - {own}
        score = float(vector @ text[own])
        hits.append(sum(float(vector @ text[said]) >= score for said in others) < top)
    return sum(hits) / len(hits)


def back(pool, text, top):
    """Share of pictures whose text finds a picture of that very text among the first `top`."""
    hits = []
    for own, _ in pool:
        best = max(float(vector @ text[own]) for said, vector in pool if said == own)
        ahead = [v for said, v in pool if said != own and float(v @ text[own]) >= best]
        hits.append(len(ahead) < top)
    return sum(hits) / len(hits)


def in_scenes(regions, text):
    hits = []
    for _, image, own, _, vector in regions:
        said = {other[2] for other in regions if other[1] == image}
        if len(said) > 1:
            best = max(said, key=lambda caption: float(vector @ text[caption]))
            hits.append(best == own)
    return sum(hits) / len(hits)


def plain_metrics(samples, embedded, benchmark, texts_TD, subset):
    regions, images, text = questions(samples, embedded, benchmark, texts_TD)
    regions = [row for row in regions if subset in ("all", row[0])]
    long, short = [(row[2], row[4]) for row in regions], [(row[3], row[4]) for row in regions]
    whole = [(row[1], row[2]) for row in images if subset in ("all", row[0])]
    found = {"scene_accuracy": in_scenes(regions, text)}
    for top in (1, 5, 10):
        for there, here, pool in (
            ("mask_to_text", "text_to_mask", long),
            ("short_mask_to_text", "short_text_to_mask", short),
            ("image_to_text", "text_to_image", whole),
        ):
            found[f"{there}_r{top}"] = forth(pool, text, top)
            found[f"{here}_r{top}"] = back(pool, text, top)
    return found


@pytest.mark.parametrize("subset", ["all", *SUBSETS])
def test_every_metric_is_that_of_a_plain_double_loop(asked, subset):
    samples, benchmark, embedded, texts_TD = asked
    answers = {MODEL: answer(benchmark, embedded, texts_TD)}
    numbers = summarise(benchmark, answers, subset, num_resamples=200, seed=0).metrics[MODEL]
    plain = plain_metrics(samples, embedded, benchmark, texts_TD, subset)
    assert set(numbers) == set(plain) == set(METRICS)
    for name, value in plain.items():
        assert numbers[name].value == pytest.approx(value), name
        assert numbers[name].low <= value <= numbers[name].high, name


def test_the_subsets_are_found_and_the_numbers_of_questions_are_right(asked):
    samples, benchmark, embedded, texts_TD = asked
    assert benchmark.subsets == ["all", *sorted(SUBSETS)]
    answers = {MODEL: answer(benchmark, embedded, texts_TD)}
    numbers = summarise(benchmark, answers, "all", num_resamples=2, seed=0).metrics[MODEL]
    num_regions = sum(len(sample.regions) for sample in samples)
    assert numbers["mask_to_text_r1"].num_samples == num_regions
    assert numbers["image_to_text_r1"].num_samples == len(samples) - 1
    in_company = sum(len(s.regions) for s in samples if len(s.regions) > 1)
    assert numbers["scene_accuracy"].num_samples == in_company


def test_a_lead_is_the_paired_difference_and_what_a_baseline_is_not_asked_is_left_out(asked):
    _, benchmark, embedded, texts_TD = asked
    worse = Embedded(embedded.regions_RD.roll(1, dims=0))
    answers = {MODEL: answer(benchmark, embedded, texts_TD)}
    answers["worse"] = answer(benchmark, worse, texts_TD)
    numbers = summarise(benchmark, answers, "all", num_resamples=300, seed=0)
    name = "scene_accuracy"
    own, other = numbers.metrics[MODEL][name], numbers.metrics["worse"][name]
    lead = numbers.leads["worse"][name]
    assert lead.value == pytest.approx(own.value - other.value)
    assert lead.low <= lead.value <= lead.high
    assert numbers.leads[MODEL][name].high == 0
    assert "image_to_text_r1" not in numbers.metrics["worse"]


def test_a_model_that_sees_no_masks_gains_nothing_from_ties_in_a_scene(asked):
    samples, benchmark, embedded, texts_TD = asked
    alike = embedded.images_UD[torch.from_numpy(benchmark.image_R)]
    found = answer(benchmark, Embedded(alike), texts_TD).samples["text_to_mask_rank"]
    in_company = np.array([len(s.regions) > 1 for s in samples for _ in s.regions])
    assert (found[in_company] > 1).all()


def test_chance_is_what_a_lottery_reaches(asked):
    _, benchmark, embedded, texts_TD = asked
    expected = chance(benchmark, SUBSETS[0])
    sums = dict.fromkeys(expected, 0.0)
    random, rounds = torch.Generator().manual_seed(1), 80
    for _ in range(rounds):
        regions_RD, images_UD, by_lot_TD = (
            torch.randn(len(some), 32, generator=random)
            for some in (embedded.regions_RD, embedded.images_UD, texts_TD)
        )
        answers = {MODEL: answer(benchmark, Embedded(regions_RD, images_UD), by_lot_TD)}
        found = summarise(benchmark, answers, SUBSETS[0], num_resamples=1, seed=0).metrics[MODEL]
        for name in sums:
            sums[name] += found[name].value / rounds
    assert set(expected) == set(METRICS)
    for name, value in sums.items():
        assert value == pytest.approx(expected[name], abs=0.07), name
        assert not math.isnan(value)


def test_embeddings_that_are_no_numbers_are_refused(asked):
    _, benchmark, embedded, texts_TD = asked
    broken = embedded.regions_RD.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(EvaluationError, match="NaN or infinity"):
        answer(benchmark, Embedded(broken), texts_TD)


def test_the_digest_tells_benchmarks_apart_but_not_their_order():
    def digest(samples):
        builder = BenchmarkBuilder()
        for sample in samples:
            builder.add(sample)
        return builder.build().digest

    some = scenes(5)
    assert digest(some) == digest(some[::-1])
    assert digest(some) != digest(some[1:])
    assert digest(some) != digest([*some[:4], scene(4, subset="other")])
    assert digest(some) != digest([*some[:4], replace(some[4], jpeg=b"packed anew")])
