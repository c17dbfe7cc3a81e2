"""A mask with a bad part keeps its good ones, and its row tells; without any, the region tells."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from components.core.run import run_step
from components.core.tables import read_rows
from components.data.formats.segmentation import UnusableMaskError, mask_counts
from components.data.select.step import select
from pixclip.masks import Rle, decode_mask, encode_mask
from tests.data.import_coco.coco_files import HEIGHT, WIDTH, annotation, content

SQUARE = [40, 30, 240, 30, 240, 180, 40, 180]
POINTS = [[40, 30], [240, 30], [240, 180], [40, 180]]
TRUTH = np.zeros((HEIGHT, WIDTH), dtype=bool)
TRUTH[30:180, 40:240] = True
SMALL = encode_mask(TRUTH)
RLE = SMALL.as_coco()
RUNS = [40 * HEIGHT + 30] + [150, 150] * 199 + [150, 120 + 160 * HEIGHT]


def decoded(segmentation, flaws=None):
    return decode_mask(Rle(HEIGHT, WIDTH, mask_counts(segmentation, HEIGHT, WIDTH, flaws)))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ([5, 5, 9, 9], "two_points"),
        ([5, 5], "two_points"),
        ([], "empty_part"),
        ([1, 2, 3, 4, 5, 6, 7], "odd_numbers"),
        ([1, 2, 3, 4, 5, float("nan")], "not_numbers"),
        ([1, 2, 3, 4, 5, float("inf")], "not_numbers"),
        ([1, 2, 3, 4, 5, 10**400], "not_numbers"),
        ([1, 2, 3, 4, 5, None], "not_numbers"),
        ([1, 2, 3, 4, 5, "six"], "not_numbers"),
        ([1, 2, 3, 4, 5, True], "not_numbers"),
        ([[[[[[[1, 2]]]]]]], "not_numbers"),
        ([5, 5, 5, 5, 5, 5], "no_area"),
        ([900, 900, 950, 900, 950, 950], "outside_image"),
        ([-9, -9, -5, -9, -5, -5], "outside_image"),
        ("polygon", "not_a_shape"),
        (None, "not_a_shape"),
        ({}, "bad_runs"),
        ({"size": [10, 10], "counts": [50, 50]}, "wrong_size"),
        ({"size": [WIDTH, HEIGHT], "counts": RLE["counts"]}, "wrong_size"),
        ({"size": "big", "counts": RLE["counts"]}, "wrong_size"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "bad_runs"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}, "bad_runs"),
        ({"size": [HEIGHT, WIDTH], "counts": "zzzzz"}, "bad_runs"),
        ({"size": [HEIGHT, WIDTH], "counts": "b'broken"}, "bad_runs"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "bad_runs"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "empty_mask"),
        ([0, 0, 400, 300] * 45_000, "long_outline"),
        ([0.5, 0.5] * 100_001, "many_points"),
    ],
)
def test_a_bad_part_is_left_out_and_the_others_make_the_mask(part, reason):
    for segmentation in ([SQUARE, part], [part, SQUARE]):
        flaws = Counter()
        assert (decoded(segmentation, flaws) == TRUTH).all()
        assert flaws[f"left_out.{reason}"] == 1
    with pytest.raises(UnusableMaskError, match=reason):
        mask_counts([part] if isinstance(part, list | dict) else [part, []], HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("segmentation", "repair"),
    [
        (SQUARE, "flat_list"),
        (list(map(str, SQUARE)), "flat_list"),
        ([list(map(str, SQUARE))], ""),
        ([list(map(float, SQUARE))], ""),
        (POINTS, "list_of_points"),
        ([POINTS], "list_of_points"),
        ([[POINTS]], "list_of_points"),
        ([[SQUARE]], ""),
        ([RLE], "rle_in_list"),
        ([RLE, SQUARE], "rle_in_list"),
        ([{"size": [HEIGHT, WIDTH], "counts": RUNS}], "rle_in_list"),
        (RLE, ""),
        ({"size": [HEIGHT, WIDTH], "counts": RUNS}, ""),
        ({"size": [str(HEIGHT), float(WIDTH)], "counts": list(map(str, RUNS))}, ""),
        ({"counts": RLE["counts"]}, ""),
        ({"size": [HEIGHT, WIDTH], "counts": f" {RLE['counts']}\n"}, ""),
        ({"size": [HEIGHT, WIDTH], "counts": repr(RLE["counts"].encode())}, "python_bytes"),
    ],
)
def test_a_form_that_can_mean_one_thing_only_is_read(segmentation, repair):
    flaws = Counter()
    assert (decoded(segmentation, flaws) == TRUTH).all()
    assert [flaw for flaw, number in flaws.items() if number] == (
        [f"repaired.{repair}"] if repair else []
    )


@pytest.mark.parametrize("segmentation", [None, [], {}, ""])
def test_no_segmentation_is_no_mask_and_no_fault(segmentation):
    flaws = Counter()
    assert mask_counts(segmentation, HEIGHT, WIDTH, flaws) is None
    assert not flaws


def test_a_polygon_that_reaches_out_is_cut_at_the_border_not_bent():
    flaws = Counter()
    triangle = [-200, 150, 200, -250, 200, 550]  # its left corner is far outside
    larger = coco.decode(coco.frPyObjects([[v + 600 for v in triangle]], 1500, 1500))[..., 0]
    expected = larger[600 : 600 + HEIGHT, 600 : 600 + WIDTH].astype(bool)
    assert (decoded([triangle], flaws) != expected).mean() < 0.01
    assert +flaws == {"repaired.points_outside_image": 1}


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=150)
@given(JUNK)
def test_any_junk_beside_a_good_part_leaves_the_good_part(junk):
    try:
        mask = decoded([SQUARE, junk])
    except UnusableMaskError:
        pytest.fail("the good part is lost")
    assert mask[TRUTH].all()


def test_the_row_tells_what_was_wrong_and_the_metrics_count_it(run, tmp_path):
    metrics, [row] = run(
        content(
            annotation(segmentation=[SQUARE, [5, 5, 9, 9], []]),
            annotation(2, bbox=[0, 0, 50, 50], segmentation=[[1, 2, 3, 4]]),
            annotation(3, bbox=[60, 60, 50, 50], segmentation=None),
            annotation(4, bbox=[70, 60, 50, 50], segmentation=SQUARE),
        )
    )
    assert row["mask_faults"] == [
        "left out: empty_part 1, two_points 1",
        "two_points: a polygon needs three points or more",
        None,
        "repaired: flat_list 1",
    ]
    assert [bool(counts) for counts in row["masks"]] == [True, False, False, True]
    assert (metrics["masks_unusable"], metrics["masks_repaired"]) == (1, 2)
    assert metrics["mask_parts.left_out.two_points"] == 2
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "select.parquet"}
    run_step(select, {"grit": tmp_path / "grit"}, outputs, {})
    kept = {r["region_id"]: r for r in read_rows(outputs["records"])}
    assert [row["mask_fault"] for row in kept.values()] == row["mask_faults"]
    assert {tuple(row["declared_size"]) for row in kept.values()} == {(HEIGHT, WIDTH)}


def test_a_missing_box_is_that_of_the_mask(run):
    metrics, [row] = run(content(annotation(bbox=None, segmentation=[SQUARE, [1, 1]])))
    assert row["ref_exps"][0][2:6] == pytest.approx([0.1, 0.1, 0.6, 0.6])
    assert metrics["boxes_from_masks"] == 1


def test_a_detail_of_a_huge_part_is_short(run):
    _, [row] = run(json.dumps(content(annotation(segmentation={"counts": ["x" * 10**6] * 9}))))
    assert len(row["mask_faults"][0]) < 300
