import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixclip.evaluation.compare import compare
from pixclip.evaluation.metrics import IMAGE_QUESTIONS, IN_SUBSET, REGION_QUESTIONS
from pixclip.evaluation.protocol import EvaluationError

REGIONS, PER_IMAGE = 120, 3


def write(folder, *, ranks=None, scene=None, protocol="p", dataset="d", ids=None, image_ranks=None):
    """An evaluation of `REGIONS` regions; half of the images are of held-out objects."""
    folder.mkdir()
    data = {"dataset": dataset, "num_regions": REGIONS}
    content = {"protocol_digest": protocol, "data": data, "metrics": {}, "num_samples": {}}
    (folder / "evaluation.json").write_text(json.dumps(content))
    ranks = ranks or [1] * REGIONS
    ids = ids or [f"r{number:03d}" for number in range(REGIONS)]
    images = [f"i{number // PER_IMAGE:03d}" for number in range(REGIONS)]
    subsets = [
        "held_out_objects" if number // PER_IMAGE % 2 else "seen_objects"
        for number in range(REGIONS)
    ]
    columns = {"region_id": ids, "image_id": images, "subset": subsets}
    columns["scene_correct"] = scene or [True] * REGIONS
    columns |= {name.rank + end: ranks for name in REGION_QUESTIONS for end in ("", IN_SUBSET)}
    pq.write_table(pa.table(columns), folder / "samples.parquet")
    num_images = REGIONS // PER_IMAGE
    columns = {"image_id": images[::PER_IMAGE], "subset": subsets[::PER_IMAGE]}
    filled = image_ranks or [1] * num_images
    columns |= {name.rank + end: filled for name in IMAGE_QUESTIONS for end in ("", IN_SUBSET)}
    pq.write_table(pa.table(columns), folder / "images.parquet")
    return folder


def test_a_better_candidate_has_a_positive_difference_and_an_interval_around_it(tmp_path):
    champion = write(tmp_path / "a", ranks=[2 if n % 2 else 1 for n in range(REGIONS)])
    candidate = write(tmp_path / "b", ranks=[2 if n % 10 == 1 else 1 for n in range(REGIONS)])
    found = compare(champion, candidate, "mask_to_text_r1")
    assert found.difference == pytest.approx(0.4)
    assert 0.2 < found.low < 0.4 < found.high < 0.6
    assert found.num_samples == REGIONS
    back = compare(candidate, champion, "mask_to_text_r1")
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-found.difference, -found.high, -found.low), abs=0.02
    )


def test_an_evaluation_equals_itself(tmp_path):
    folder = write(tmp_path / "a", ranks=[1 + n % 3 for n in range(REGIONS)])
    found = compare(folder, folder, "text_to_mask_r1")
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_pairing_makes_the_interval_narrow(tmp_path):
    """Two models that fail on the same half of the samples differ in one image only."""
    hard = [2 if n % 2 else 1 for n in range(REGIONS)]
    champion = write(tmp_path / "a", ranks=hard)
    candidate = write(tmp_path / "b", ranks=[1, 1, *hard[2:]])
    found = compare(champion, candidate, "mask_to_text_r1")
    assert found.difference == pytest.approx(1 / REGIONS)
    assert found.high - found.low < 0.05


def test_a_subset_is_compared_on_its_own_samples(tmp_path):
    champion = write(tmp_path / "a")
    scene = [n // PER_IMAGE % 2 == 0 for n in range(REGIONS)]  # wrong on all held-out objects
    candidate = write(tmp_path / "b", scene=scene)
    assert compare(champion, candidate, "seen_objects.scene_accuracy").difference == 0
    found = compare(champion, candidate, "held_out_objects.scene_accuracy")
    assert (found.difference, found.num_samples) == (-1, REGIONS // 2)


def test_scenes_that_ask_nothing_do_not_count(tmp_path):
    asked = [None if n < 30 else True for n in range(REGIONS)]
    champion, candidate = (write(tmp_path / name, scene=asked) for name in "ab")
    assert compare(champion, candidate, "scene_accuracy").num_samples == REGIONS - 30


def test_whole_images_are_compared_by_image(tmp_path):
    champion = write(tmp_path / "a", image_ranks=[3] * 40)
    candidate = write(tmp_path / "b")
    found = compare(champion, candidate, "image_to_text_r1")
    assert (found.difference, found.num_samples) == (1, 40)
    assert compare(champion, candidate, "image_to_text_r5").difference == 0


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    champion = write(tmp_path / "a", ranks=[1 + n % 2 for n in range(REGIONS)])
    shuffled = pq.read_table(champion / "samples.parquet").take(list(range(REGIONS))[::-1])
    candidate = write(tmp_path / "b")
    pq.write_table(shuffled, candidate / "samples.parquet")
    assert compare(champion, candidate, "mask_to_text_r1").difference == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "other"}, "protocols differ"),
        ({"dataset": "other"}, "data sets differ"),
        ({"ids": [f"x{n}" for n in range(REGIONS)]}, "do not hold the same samples"),
    ],
)
def test_numbers_that_do_not_compare_are_refused(tmp_path, change, message):
    with pytest.raises(EvaluationError, match=message):
        compare(write(tmp_path / "a"), write(tmp_path / "b", **change), "scene_accuracy")


def test_an_unknown_metric_is_refused_with_the_known_ones(tmp_path):
    folder = write(tmp_path / "a")
    with pytest.raises(EvaluationError, match=r"no metric 'accuracy'.*scene_accuracy"):
        compare(folder, folder, "accuracy")


def test_a_subset_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    folder = write(tmp_path / "a")
    with pytest.raises(EvaluationError, match="all, held_out_objects, seen_objects"):
        compare(folder, folder, "birds.scene_accuracy")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"protocol_digest": 1, "data": 3}'])
def test_a_damaged_evaluation_is_refused_by_name(tmp_path, content):
    folder = write(tmp_path / "a")
    (folder / "evaluation.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"evaluation\.json is no evaluation"):
        compare(folder, folder, "scene_accuracy")


def test_a_missing_file_is_refused_by_name(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "samples.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"samples\.parquet"):
        compare(folder, folder, "scene_accuracy")
    with pytest.raises(EvaluationError, match="evaluate first"):
        compare(tmp_path / "nowhere", folder, "scene_accuracy")
