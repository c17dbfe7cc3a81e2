"""The sample: exact masks and names, splits without overlap, the same bytes for the same seed."""

import io
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from components.core.digests import file_digests
from components.core.errors import InputError
from components.core.run import run_step
from components.core.tables import read_rows
from components.data.sample_grit import records
from components.data.sample_grit.catalogue import load_photographs
from components.data.sample_grit.records import FAULTS, REGION_FAULTS, Label, label_of
from components.data.sample_grit.step import sample_grit
from components.data.select.step import select
from pixclip.images import ImageError, open_image
from pixclip.masks import Rle, decode_mask, mask_box


def sound(grit):
    return [row for row in read_rows(grit) if not row["fault"]]


def image_bytes(grit, row):
    return (grit / row["url"].removeprefix("file:///")).read_bytes()


def masks_of(row):
    return [decode_mask(Rle(row["height"], row["width"], counts)) for counts in row["masks"]]


def test_every_offset_cuts_the_name_of_an_object_out_of_the_caption(grit):
    for row in sound(grit):
        names = [row["caption"][int(start) : int(end)] for start, end, *_ in row["ref_exps"]]
        assert len(set(names)) == 3
        assert all(name.lower().startswith("a bird of kind ") for name in names), names
        assert row["noun_chunks"] == row["ref_exps"]


def test_boxes_are_tight_around_masks_that_do_not_share_a_pixel(grit):
    for row in sound(grit):
        masks = masks_of(row)
        assert np.sum(masks, axis=0).max() == 1
        for mask, region in zip(masks, row["ref_exps"], strict=True):
            x1, y1, x2, y2 = mask_box(mask)
            scaled = [x1 / row["width"], y1 / row["height"], x2 / row["width"], y2 / row["height"]]
            assert region[2:6] == pytest.approx(scaled)


def test_the_masks_show_the_objects_and_not_the_background(photographs, grit):
    """Inside its mask a drawn disc has one colour, whatever stands before or behind it."""
    for row in sound(grit)[:10]:
        pixels = np.asarray(open_image(image_bytes(grit, row)), dtype=float)
        for mask, region in zip(masks_of(row), row["ref_exps"], strict=True):
            name = row["caption"][int(region[0]) : int(region[1])]
            number = int(name.rpartition(" ")[2])
            color = (number * 7 % 256, number * 53 % 256, number * 101 % 256)
            assert np.median(pixels[mask], axis=0) == pytest.approx(color, abs=12)


def test_on_request_the_image_is_its_first_region_and_its_objects_are_parts(make_sample, grit):
    plain = list(read_rows(make_sample()))
    rows = list(read_rows(make_sample(whole_images=True)))
    for row, before in zip(rows, plain, strict=True):
        start, end, *box, score = row["ref_exps"][0]
        assert row["caption"][int(start) : int(end)] == "A composed scene"
        assert (box, score) == ([0.0, 0.0, 1.0, 1.0], 1.0)
        assert row["box_sources"] == ["image", "published", "published", "published"]
        assert row["masks"][1:] == before["masks"]
        assert len(row["masks"]) == len(row["ref_exps"]) == 4
        if not row["fault"]:
            assert masks_of(row)[0].all()
            for part, other in zip(row["ref_exps"][1:], before["ref_exps"], strict=True):
                name = before["caption"][int(other[0]) : int(other[1])]
                assert row["caption"][int(part[0]) : int(part[1])] == name


def test_the_caption_says_where_each_object_is(grit):
    for row in sound(grit):
        for _, end, x1, _, x2, _, _ in row["ref_exps"]:
            where = row["caption"][int(end) :].lstrip().split(",")[0].split(" and ")[0]
            center = (x1 + x2) / 2
            assert ("left" in where) == (center < 1 / 3), (where, center)
            assert ("right" in where) == (center >= 2 / 3), (where, center)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(make_sample):
    first, again, other = (
        file_digests(make_sample(seed=seed, num_scenes=12, fault_share=0)) for seed in (3, 3, 4)
    )
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


def test_a_larger_sample_starts_with_the_smaller_one(make_sample):
    small = list(read_rows(make_sample(num_scenes=10, fault_share=0)))
    assert list(read_rows(make_sample(num_scenes=14, fault_share=0)))[:10] == small


def test_the_benchmark_shares_no_background_and_half_of_it_no_object_with_training(grit):
    names = {"train": set(), "seen_objects": set(), "held_out_objects": set()}
    for row in read_rows(grit):
        phrases = {row["caption"][int(s) : int(e)].lower() for s, e, *_ in row["noun_chunks"]}
        names[row["subset"] or row["split"]] |= phrases
    assert names["seen_objects"] & names["train"]
    assert names["held_out_objects"]
    assert not names["held_out_objects"] & (names["train"] | names["seen_objects"])


def test_photographs_are_held_out_whatever_the_seed(photographs):
    found = load_photographs(photographs)
    seen = {photo.phrase for photo in found.seen_objects}
    held_out = {photo.phrase for photo in found.held_out_objects}
    assert (len(seen), len(held_out)) == (29, 7)
    assert not seen & held_out
    assert (len(found.train_backgrounds), len(found.benchmark_backgrounds)) == (6, 2)
    assert not set(found.train_backgrounds) & set(found.benchmark_backgrounds)


def test_a_scene_takes_the_background_and_the_objects_of_its_label(photographs, monkeypatch):
    found = load_photographs(photographs)
    allowed = {
        Label("train", ""): (found.seen_objects, found.train_backgrounds),
        Label("benchmark", "seen_objects"): (found.seen_objects, found.benchmark_backgrounds),
        Label("benchmark", "held_out_objects"): (
            found.held_out_objects,
            found.benchmark_backgrounds,
        ),
    }
    taken = []
    monkeypatch.setattr(records, "compose_scene", lambda *arguments: taken.append(arguments))
    for label, (objects, backgrounds) in allowed.items():
        for seed in range(20):
            records.draw_scene(found, label, 320, 240, Random(seed))
            photos, background, *_ = taken.pop()
            assert set(photos) <= set(objects)
            assert background in backgrounds


def test_the_benchmark_share_is_met_exactly_and_halved():
    labels = Counter((label_of(n, 0.2).split, label_of(n, 0.2).subset) for n in range(300))
    assert labels == {
        ("train", ""): 240,
        ("benchmark", "seen_objects"): 30,
        ("benchmark", "held_out_objects"): 30,
    }


def test_every_kind_of_fault_occurs_equally_often(grit):
    counts = Counter(row["fault"] for row in read_rows(grit))
    assert counts == {"": 48, **dict.fromkeys(FAULTS, 4)}


def test_dead_urls_have_no_file_and_truncated_images_do_not_open(grit):
    rows = {fault: [r for r in read_rows(grit) if r["fault"] == fault] for fault in FAULTS}
    for row in rows["dead_url"]:
        assert row["url"].startswith("http://dead.invalid/")
        assert not (grit / "images" / f"{row['key']}.jpg").exists()
    for row in rows["truncated_image"]:
        with pytest.raises(ImageError, match="truncated_image"):
            open_image(image_bytes(grit, row))


def test_a_duplicate_has_the_bytes_of_an_earlier_sound_record_of_its_split(grit):
    rows = list(read_rows(grit))
    for row in rows:
        if row["fault"] == "duplicate_image":
            twins = [
                other
                for other in rows[: row["id"]]
                if not other["fault"] and image_bytes(grit, other) == image_bytes(grit, row)
            ]
            assert [(t["split"], t["subset"]) for t in twins] == [(row["split"], row["subset"])]


def test_each_fault_ends_in_select_with_its_reason_or_passes_on(grit, tmp_path):
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "select.parquet"}
    run_step(select, {"grit": grit}, outputs, {"min_image_side_px": 100})
    dropped = {}
    for row in read_rows(outputs["quarantine"]):
        dropped.setdefault(int(row["record_id"]), []).append(row["reason"])
    ends = {
        **{fault: [fault] for fault in REGION_FAULTS},
        "low_similarity": ["low_clip_similarity"] * 3,
    }
    for row in read_rows(grit):
        assert dropped.get(row["id"], []) == ends.get(row["fault"], []), row["fault"]


def test_the_published_sample_is_not_made_twice(photographs, tmp_path, monkeypatch):
    settings = {"num_scenes": 4, "photographs": str(photographs)}
    first = run_step(sample_grit, {}, {"grit": tmp_path / "grit"}, settings)
    settings["photographs"] = "elsewhere"  # where they are is no part of what is made
    assert run_step(sample_grit, {}, {"grit": tmp_path / "grit"}, settings) == first


def test_missing_photographs_say_how_to_fetch_them(tmp_path):
    settings = sample_grit.settings_type(photographs=str(tmp_path))
    with pytest.raises(InputError, match="make setup"):
        sample_grit.function(grit=tmp_path / "grit", settings=settings)


def test_scenes_are_jpegs_of_the_wanted_size(grit):
    image = Image.open(io.BytesIO(image_bytes(grit, sound(grit)[0])))
    assert (image.format, image.size) == ("JPEG", (320, 240))
