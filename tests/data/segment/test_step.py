import json
from collections.abc import Sequence

import numpy as np
import pytest

from components.core.errors import GateError
from components.core.run import run_step
from components.core.tables import WORK_FOLDER, read_rows
from components.data.segment import step as segment_module
from components.data.segment.segmenter import BoxSegmenter, MaskResult, Prompt
from components.data.segment.settings import SegmentSettings
from components.data.segment.step import segment
from pixclip.masks import Rle, decode_mask, mask_iou

LENIENT = {"max_quarantined_share": 1.0}


class TrustingSegmenter(BoxSegmenter):
    """Fills boxes, but fails on images of some widths; keeps what it was asked."""

    def __init__(self, bad_widths_px: Sequence[int], images_per_batch: int = 1) -> None:
        self.source, self.images_per_batch = "fake", images_per_batch
        self._bad_widths_px, self.calls = bad_widths_px, []

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        self.calls.append([prompt.image.width for prompt in prompts])
        for prompt in prompts:
            if prompt.image.width in self._bad_widths_px:
                raise RuntimeError("out of memory")
        return super().segment(prompts)


class Killed(BaseException):
    """What no step catches."""


class ForgetfulSegmenter(BoxSegmenter):
    """Gives the masks of the first image it saw for every image."""

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        self._first = getattr(self, "_first", None) or super().segment(prompts[:1])[0]
        return [self._first for _ in prompts]


def use(monkeypatch, segmenter):
    monkeypatch.setattr(segment_module, "build_segmenter", lambda settings: segmenter)


def run(group, outputs, **settings):
    """The step's function alone; what is around it costs seconds for the contracts."""
    checked = SegmentSettings.model_validate({**LENIENT, **settings})
    metrics = segment.function(**group.write(), **outputs, settings=checked)
    assert metrics["regions_in"] == metrics["regions_out"] + metrics["regions_quarantined"]
    regions = list(read_rows(outputs["regions"]))
    quarantine = list(read_rows(outputs["quarantine"]))
    return metrics, regions, quarantine


def mask_of(region):
    return decode_mask(Rle(*region["mask_size"], region["mask_counts"]))


def file_bytes(outputs):
    tables = {path.name: path.read_bytes() for path in outputs["regions"].glob("*.parquet")}
    return {**tables, "quarantine": outputs["quarantine"].read_bytes()}


def test_the_records_own_masks_are_kept_as_they_are(group, outputs):
    for seed in range(3):
        group.add(seed)
    metrics, regions, quarantine = run(group, outputs(), source="record")
    assert [r["region_id"] for r in regions] == [r["region_id"] for r in group.rows]
    for region in regions:
        truth = group.truth[region["region_id"]]
        assert np.array_equal(mask_of(region), truth)
        assert region["mask_area_px"] == truth.sum()
        assert region["mask_source"] == "record"
    assert quarantine == []
    assert metrics["regions_in"] == metrics["regions_out"] == 6
    assert metrics["num_images"] == 3


def test_rows_without_a_mask_are_quarantined_or_take_the_fallback(group, outputs):
    group.add(0)
    group.add(1, has_masks=False)
    metrics, regions, quarantine = run(group, outputs("none"), source="record")
    assert {r["record_id"] for r in regions} == {"0"}
    assert [(q["region_id"], q["reason"]) for q in quarantine] == [
        ("1-00", "no_mask"),
        ("1-01", "no_mask"),
    ]
    metrics, regions, _ = run(group, outputs("box"), source="record", fallback="box")
    assert [r["mask_source"] for r in regions] == ["record", "record", "box", "box"]
    assert metrics["masks_from.record"] == metrics["masks_from.box"] == 2


def test_a_region_whose_own_mask_is_unusable_gets_no_guess_unless_the_settings_allow_it(
    group, outputs
):
    group.add(0)
    for row in group.add(1, has_masks=False):
        row["mask_fault"] = "two_points: a polygon needs three points or more"
    settings = {"source": "record", "fallback": "box"}
    metrics, regions, quarantine = run(group, outputs("off"), **settings)
    assert {region["mask_source"] for region in regions} == {"record"}
    assert {row["reason"] for row in quarantine} == {"own_mask_unusable"}
    assert "two_points" in quarantine[0]["detail"]
    assert "segment.replace_unusable_masks" in quarantine[0]["detail"]
    assert (metrics["quarantined.own_mask_unusable"], metrics["masks_replaced"]) == (2, 0)
    metrics, regions, _ = run(group, outputs("on"), **settings, replace_unusable_masks=True)
    assert [region["mask_source"] for region in regions] == ["record", "record", "box", "box"]
    assert [region["mask_fault"] is None for region in regions] == [True, True, False, False]
    assert metrics["masks_replaced"] == 2


def test_a_mask_without_some_parts_is_used_and_its_row_tells(group, outputs):
    flawed, _ = group.add(0)
    flawed["mask_fault"] = "parts left out: two_points 1"
    metrics, regions, _ = run(group, outputs(), source="record", fallback="grabcut")
    assert [region["mask_source"] for region in regions] == ["record", "record"]
    assert regions[0]["mask_fault"] == "parts left out: two_points 1"
    assert (metrics["masks_repaired"], metrics["masks_replaced"]) == (1, 0)


def test_all_masks_are_made_where_the_settings_ask_for_it_whatever_the_record_brought(
    group, outputs
):
    for row in group.add(0, has_masks=False):
        row["mask_fault"] = "bad_runs: the runs do not add up to the image"
    metrics, regions, quarantine = run(group, outputs(), source="box")
    assert (len(regions), quarantine, metrics["masks_replaced"]) == (2, [], 2)


def test_masks_that_do_not_fit_the_image_are_quarantined_with_a_reason(group, outputs):
    damaged, other_size, huge, fine = (group.add(seed, num_objects=1)[0] for seed in range(4))
    damaged["mask_counts"] = damaged["mask_counts"][:-2]
    other_size["mask_size"] = [10, 10]
    huge["mask_counts"] += "oooo1"
    _, regions, quarantine = run(group, outputs(), source="record")
    assert [r["region_id"] for r in regions] == [fine["region_id"]]
    assert [q["reason"] for q in quarantine] == [
        "mask_damaged",
        "mask_size_mismatch",
        "mask_damaged",
    ]
    assert json.loads(quarantine[0]["row"])["mask_counts"] == damaged["mask_counts"]


def test_grabcut_agrees_with_the_records_masks_and_says_how_much(group, outputs):
    for seed in range(4):
        group.add(seed)
    metrics, regions, _ = run(group, outputs(), source="grabcut")
    ious = [mask_iou(mask_of(r), group.truth[r["region_id"]]) for r in regions]
    assert len(regions) == 8
    assert min(ious) > 0.9
    assert metrics["mean_iou_with_record_mask"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert all(r["mask_source"] == "grabcut" for r in regions)
    assert all(mask_of(r).any() for r in regions)


def test_the_agreement_is_not_reported_where_there_is_no_other_mask(group, outputs):
    group.add(0, has_masks=False)
    metrics, _, _ = run(group, outputs(), source="box")
    assert "mean_iou_with_record_mask" not in metrics


@pytest.mark.parametrize("images_per_batch", [1, 2, 5])
def test_an_image_that_fails_loses_its_own_regions_only(
    group, outputs, monkeypatch, images_per_batch
):
    for seed, num_objects in enumerate((1, 3, 2, 1, 2)):
        group.add(seed, num_objects)
    segmenter = TrustingSegmenter(bad_widths_px=[240], images_per_batch=images_per_batch)
    use(monkeypatch, segmenter)
    metrics, regions, quarantine = run(group, outputs(), source="box")
    assert [q["region_id"] for q in quarantine] == ["1-00", "1-01", "1-02"]
    assert {q["reason"] for q in quarantine} == {"segmenter_failed"}
    assert "out of memory" in quarantine[0]["detail"]
    assert metrics["quarantined.segmenter_failed"] == 3
    for region in regions:
        x1, y1, x2, y2 = map(int, region["box_xyxy"])
        assert region["mask_size"] == [region["image_height_px"], region["image_width_px"]]
        assert mask_of(region)[y1:y2, x1:x2].all()
        assert region["mask_area_px"] == (x2 - x1) * (y2 - y1)


def test_masks_of_another_image_are_refused(group, outputs, monkeypatch):
    group.add(0)
    group.add(1)  # of another height
    use(monkeypatch, ForgetfulSegmenter())
    _, regions, quarantine = run(group, outputs(), source="box")
    assert {r["record_id"] for r in regions} == {"0"}
    assert [q["reason"] for q in quarantine] == ["segmenter_failed"] * 2


def test_all_boxes_of_an_image_are_asked_for_at_once(group, outputs, monkeypatch):
    group.add(0, num_objects=3)
    group.add(1, num_objects=2)
    segmenter = TrustingSegmenter([])
    use(monkeypatch, segmenter)
    run(group, outputs(), source="box")
    assert segmenter.calls == [[240], [160]]


def test_an_unreadable_image_is_quarantined(group, outputs):
    group.add(0)
    group.add(1)
    group.samples[0]["jpg"] = group.samples[0]["jpg"][:200]
    _, regions, quarantine = run(group, outputs(), source="box")
    assert {r["record_id"] for r in regions} == {"1"}
    assert {q["reason"] for q in quarantine} <= {"truncated_image", "not_an_image"}
    assert len(quarantine) == 2


def test_an_image_of_another_size_than_its_rows_say_is_quarantined(group, outputs):
    for row in group.add(0):
        row["image_width_px"] += 1
    group.add(1)
    _, _, quarantine = run(group, outputs(), source="box")
    assert {q["reason"] for q in quarantine} == {"image_size_mismatch"}


def test_too_many_lost_regions_fail_the_step_with_the_reasons(group, outputs):
    group.add(0)
    group.add(1, has_masks=False)
    group.add(2, has_masks=False)
    with pytest.raises(GateError, match=r"lost 4 of 6 regions \(no_mask 4\)"):
        run(group, outputs(), source="record", max_quarantined_share=0.5)


def test_the_bytes_do_not_depend_on_threads_or_on_a_kill(group, outputs, monkeypatch):
    for seed in range(5):
        rows = group.add(seed)
        rows[0]["box_xyxy"] = [0.0, 0.0, 3.0, 3.0]  # too small: each part quarantines something
    settings = {"source": "grabcut", "images_per_part": 2}
    run(group, outputs("one"), **settings, grabcut={"num_threads": 1})
    expected = file_bytes(outputs("one"))
    assert len(list(read_rows(outputs("one")["quarantine"]))) == 5
    assert len([name for name in expected if name.startswith("part-")]) == 3

    run(group, outputs("four"), **settings, grabcut={"num_threads": 4})
    assert file_bytes(outputs("four")) == expected

    masked = killed_after_two_parts(monkeypatch)
    with pytest.raises(Killed):
        run(group, outputs("killed"), **settings)
    masked.clear()
    run(group, outputs("killed"), **settings)
    assert masked == [1]  # the images of the last part only
    assert file_bytes(outputs("killed")) == expected


def killed_after_two_parts(monkeypatch) -> list[int]:
    """Stop the process, as a kill would, before the third part; gives the sizes of parts done."""
    real, sizes = segment_module.mask_part, []

    def mask_part(images, *rest):
        if len(sizes) == 2:
            sizes.append(0)
            raise Killed
        sizes.append(len(images))
        return real(images, *rest)

    monkeypatch.setattr(segment_module, "mask_part", mask_part)
    return sizes


def test_a_group_without_candidates_gives_empty_tables(group, outputs):
    group.add(0)
    group.rows.clear()
    metrics, regions, quarantine = run(group, outputs(), source="box")
    assert (regions, quarantine, metrics["regions_in"]) == ([], [], 0)


def test_the_published_tables_meet_their_contracts(group, outputs):
    group.add(0)
    group.add(1, has_masks=False)
    settings = {"source": "record", "fallback": "grabcut"}
    inputs = group.write()
    receipt = run_step(segment, inputs, outputs(), settings)
    assert receipt.metrics["regions_out"] == 4
    assert set(receipt.contracts) >= {"regions"}
    assert not (outputs()["regions"] / WORK_FOLDER).exists()
    assert run_step(segment, inputs, outputs(), settings) == receipt


def test_threads_and_batches_do_not_make_an_output_stale():
    def fingerprinted(**settings):
        return segment.fingerprinted_settings(SegmentSettings.model_validate(settings))

    assert fingerprinted(sam={"images_per_batch": 9, "device": "cpu"}) == fingerprinted()
    assert fingerprinted(grabcut={"num_threads": 9}) == fingerprinted()
    assert fingerprinted(sam={"model": "facebook/sam2.1-hiera-large"}) != fingerprinted()
