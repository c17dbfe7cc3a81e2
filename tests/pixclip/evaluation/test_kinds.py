"""Objects, parts and whole images of one benchmark are told apart, and each asks its own pool."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from data_contracts.candidates import DETECTED, OBJECT
from pixclip.data.layout import KINDS, WHOLE_OBJECT
from pixclip.evaluation.benchmark import Benchmark, BenchmarkBuilder, Embedded, answer, chance
from pixclip.evaluation.compare import compare
from pixclip.evaluation.protocol import LONGGRIT_REGIONS, EvaluationError
from pixclip.evaluation.results import MODEL, evaluate_embeddings, write_results
from tests.pixclip.evaluation.scenes import scene, scenes
from tests.pixclip.evaluation.test_answers import back, forth

WIDTH = 8


def with_sources(sample, *sources):
    pairs = zip(sample.regions, sources, strict=True)
    return replace(sample, regions=tuple(replace(one, box_source=source) for one, source in pairs))


def mixed_samples():
    """Scenes of objects, and as many whose first region is the image and the others its parts."""
    parts = [scene(30 + n, subset="bird") for n in range(6)]
    return [*scenes(6), *(with_sources(one, "image", "points", "published") for one in parts)]


def build(samples) -> Benchmark:
    builder = BenchmarkBuilder()
    for sample in samples:
        builder.add(sample)
    return builder.build()


@pytest.fixture(scope="module")
def mixed():
    """The benchmark and embeddings that know their texts more or less."""
    benchmark, random = build(mixed_samples()), torch.Generator().manual_seed(0)

    def vectors(number):
        return F.normalize(torch.randn(number, WIDTH, generator=random), dim=-1)

    texts_TD = vectors(len(benchmark.texts))
    pull = 0.8 * texts_TD[torch.from_numpy(benchmark.long_R)]
    regions_RD = F.normalize(vectors(len(benchmark.region_ids)) + pull, dim=-1)
    return benchmark, Embedded(regions_RD, vectors(len(benchmark.image_ids))), texts_TD


@pytest.mark.parametrize(
    ("source", "kind"),
    [("", "objects"), (OBJECT, "objects"), ("image", "whole_images"), ("points", "parts"),
     ("published", "parts"), (f"{DETECTED}m@c>=0.3", "parts")],
)  # fmt: skip
def test_a_region_is_what_its_source_says_of_its_box(source, kind):
    assert replace(scene(0).regions[0], box_source=source).kind == kind
    assert WHOLE_OBJECT == OBJECT


@pytest.mark.parametrize("kind", KINDS)
def test_every_recall_of_a_kind_is_that_of_a_plain_double_loop_over_it(mixed, kind):
    benchmark, embedded, texts_TD = mixed
    results = evaluate_embeddings(benchmark, {MODEL: embedded}, texts_TD, num_resamples=200, seed=0)
    numbers = results.numbers[kind].metrics[MODEL]
    rows = [n for n, found in enumerate(benchmark.kind_R) if found == kind]
    for place_R, form in ((benchmark.long_R, "{}"), (benchmark.short_R, "short_{}")):
        pool = [(place_R[n], embedded.regions_RD[n]) for n in rows]
        for top in (1, 5, 10):
            for count, name in ((forth, "mask_to_text"), (back, "text_to_mask")):
                number = numbers[f"{form.format(name)}_r{top}"]
                assert number.value == pytest.approx(count(pool, texts_TD, top))
                assert number.low <= number.value <= number.high
                assert number.num_samples == len(rows)
    assert not {"image_to_text_r1", "text_to_image_r1"} & set(numbers)
    assert results.chances[kind]["mask_to_text_r1"] == pytest.approx(
        1 / len({int(benchmark.long_R[n]) for n in rows})
    )


def test_a_part_asks_among_all_regions_of_its_image(mixed):
    benchmark, embedded, texts_TD = mixed
    found = evaluate_embeddings(benchmark, {MODEL: embedded}, texts_TD, num_resamples=100, seed=0)
    right = []
    for row in (n for n, kind in enumerate(benchmark.kind_R) if kind == "parts"):
        own = [n for n, image in enumerate(benchmark.image_R) if image == benchmark.image_R[row]]
        assert len(own) == 3
        scores = [float(embedded.regions_RD[row] @ texts_TD[benchmark.long_R[n]]) for n in own]
        right.append(own[scores.index(max(scores))] == row)
    number = found.numbers["parts"].metrics[MODEL]["scene_accuracy"]
    assert number.value == pytest.approx(sum(right) / len(right))
    assert chance(benchmark, "parts")["scene_accuracy"] == pytest.approx(1 / 3)


def test_a_benchmark_of_one_kind_has_the_numbers_that_it_had(mixed):
    plain = build(scenes(6))
    assert plain.subsets == ["all", "held_out_objects", "seen_objects"]
    _, embedded, _ = mixed
    num = len(plain.region_ids)
    texts_TD = F.normalize(torch.randn(len(plain.texts), WIDTH), dim=-1)
    found = answer(plain, Embedded(embedded.regions_RD[:num]), texts_TD)
    assert not [name for name in found.samples if name.endswith("_in_kind")]
    assert mixed[0].subsets == ["all", "bird", "held_out_objects", "seen_objects", *KINDS]


def test_two_models_are_compared_on_parts_alone(mixed, tmp_path):
    benchmark, embedded, texts_TD = mixed
    worse = embedded.regions_RD.clone()
    is_part = torch.from_numpy(benchmark.kind_R == "parts")
    worse[is_part] = -texts_TD[torch.from_numpy(benchmark.long_R)][is_part]
    for name, regions_RD in (("champion", embedded.regions_RD), ("candidate", worse)):
        one = {MODEL: Embedded(regions_RD, embedded.images_UD)}
        results = evaluate_embeddings(benchmark, one, texts_TD, num_resamples=100, seed=0)
        (tmp_path / name).mkdir()
        told = write_results(
            tmp_path / name, results, LONGGRIT_REGIONS, checkpoint="c", manifest="m"
        )
    assert told["parts.scene_accuracy"] == 0
    folders = tmp_path / "champion", tmp_path / "candidate"
    found = compare(*folders, "parts.mask_to_text_r10")
    assert (found.difference < 0, found.num_samples) == (True, int(is_part.sum()))
    assert compare(*folders, "objects.scene_accuracy").difference == 0
    with pytest.raises(EvaluationError, match="image_to_text_rank_in_kind"):
        compare(*folders, "parts.image_to_text_r1")


def test_a_subset_that_is_called_like_a_kind_is_refused():
    with pytest.raises(EvaluationError, match="called parts"):
        build([scene(0, subset="parts")])
