"""Batches of images with captions and parts."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixclip.config import PreprocessConfig
from pixclip.data.config import PartDataConfig
from pixclip.data.errors import DataError
from pixclip.data.parts import draw_parts
from pixclip.data.shards import iterate_images
from pixclip.preprocess import Preprocess
from tests.pixclip.data.part_world import (
    epoch_of,
    open_fgpart,
    part_scene,
    words,
    write_fgpart,
)
from tests.pixclip.data.world import PREPROCESS, SIZE_PX, write_longgrit


@pytest.fixture(scope="module")
def fgpart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fgpart")
    return folder, {scene.key: scene for scene in write_fgpart(folder)}


def expected_crop(scene, row, preprocess=PREPROCESS):
    image = Image.open(io.BytesIO(scene.jpeg)).convert("RGB")
    x1, y1, x2, y2 = row["box_xyxy"]
    window = (int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2)))
    return preprocess.image(image.crop(window))


def test_every_image_comes_once_with_all_its_parts_in_slots_of_its_own(fgpart):
    folder, scenes = fgpart
    batches = epoch_of(open_fgpart(folder))
    assert sorted(key for batch in batches for key in batch.image_ids) == sorted(scenes)
    for batch in batches:
        counts = [len(scenes[key].rows) - 1 for key in batch.image_ids]
        slots = [4 * n + place for n, count in enumerate(counts) for place in range(count)]
        assert batch.slots_k.tolist() == slots
        assert batch.has_part_s.nonzero()[:, 0].tolist() == slots
        assert len(batch.crops_kCHW) == len(batch.parts_kl) == len(slots)


def test_a_part_is_cut_out_of_the_original_image_and_has_its_own_caption(fgpart):
    folder, scenes = fgpart
    for batch in epoch_of(open_fgpart(folder, long_part_share=1.0)):
        rows = [(scenes[key], row) for key in batch.image_ids for row in scenes[key].rows[1:]]
        for crop, (scene, row) in zip(batch.crops_kCHW, rows, strict=True):
            assert torch.equal(crop, expected_crop(scene, row))
        texts = words([row["long_caption"] for _, row in rows])
        assert torch.equal(batch.parts_kl, texts)


def test_an_image_has_the_captions_of_the_region_that_is_all_of_it(fgpart):
    folder, scenes = fgpart
    for batch in epoch_of(open_fgpart(folder)):
        wholes = [scenes[key].rows[0] for key in batch.image_ids]
        assert torch.equal(batch.long_bl, words([row["long_caption"] for row in wholes]))
        assert torch.equal(batch.short_bl, words([row["short_caption"] for row in wholes]))
        assert batch.has_long_b.all()
        assert batch.has_short_b.all()


def test_an_image_that_nobody_described_as_a_whole_has_no_captions(tmp_path):
    scenes = [part_scene(number, 2) for number in range(3)]
    scenes[1].rows.pop(0)
    write_longgrit(tmp_path, scenes)
    (batch,) = epoch_of(open_fgpart(tmp_path))
    has_captions = [key != scenes[1].key for key in batch.image_ids]
    assert batch.has_long_b.tolist() == batch.has_short_b.tolist() == has_captions
    assert len(batch.slots_k) == 6


def test_a_banner_below_the_image_is_not_seen(tmp_path):
    scenes = [part_scene(number, 1) for number in range(3)]
    for scene in scenes:
        scene.rows[0]["box_xyxy"] = [0.0, 0.0, 60.0, 24.0]
    write_longgrit(tmp_path, scenes)
    by_key = {scene.key: scene for scene in scenes}
    (batch,) = epoch_of(open_fgpart(tmp_path))
    for key, image in zip(batch.image_ids, batch.images_bCHW, strict=True):
        assert torch.equal(image, expected_crop(by_key[key], by_key[key].rows[0]))


def test_both_sides_of_one_part_share_a_number_and_no_other_parts_do(fgpart):
    folder, scenes = fgpart
    for batch in epoch_of(open_fgpart(folder)):
        rows = [(key, row) for key in batch.image_ids for row in scenes[key].rows[1:]]
        numbers = batch.part_ids_s2[batch.slots_k, 1].tolist()
        for (key, row), number in zip(rows, numbers, strict=True):
            twins = [
                (k, r) for (k, r), n in zip(rows, numbers, strict=True) if n == number and r != row
            ]
            is_twin = row["phrase"] in ("left eye", "right eye")
            others = [r["phrase"] for k, r in twins]
            assert all(k == key for k, _ in twins)
            assert not others or (is_twin and {row["phrase"], *others} == {"left eye", "right eye"})
    assert any(len(scene.rows) > 2 for scene in scenes.values())


def test_equal_captions_of_parts_have_equal_numbers(tmp_path):
    scenes = [part_scene(number, 3) for number in range(3)]
    for scene in scenes:
        scene.rows[3]["short_caption"] = "a yellow beak"
    write_longgrit(tmp_path, scenes)
    (batch,) = epoch_of(open_fgpart(tmp_path, long_part_share=0.0))
    ids = batch.part_ids_s2[batch.slots_k, 0].reshape(3, 3)
    assert len(set(ids[:, 2].tolist())) == 1
    assert len(set(ids.flatten().tolist())) == 7


def test_more_parts_than_wanted_take_turns(fgpart):
    folder, _ = fgpart
    (sample, *_) = [s for s in iterate_images(folder, "train") if len(s.regions) == 5]
    config = PartDataConfig(parts_per_image=2)
    drawn = [draw_parts(config, epoch, sample) for epoch in range(30)]
    names = [tuple(part.region.region_id for part in parts) for parts in drawn]
    assert all(len(parts) == 2 for parts in names)
    assert len(set(names)) == 6
    assert all(parts == tuple(sorted(parts)) for parts in names)


def test_long_and_short_captions_of_parts_come_in_the_wanted_share(fgpart):
    folder, _ = fgpart
    samples = list(iterate_images(folder, "train"))
    config = PartDataConfig(long_part_share=0.25)
    texts = [p.text for e in range(200) for s in samples for p in draw_parts(config, e, s)]
    assert sum(text.startswith("long") for text in texts) / len(texts) == pytest.approx(
        0.25, abs=0.04
    )


def test_wrong_captions_come_with_their_parts_short_caption_and_no_more_than_wanted(tmp_path):
    scenes = [part_scene(number, 2) for number in range(3)]
    for number, scene in enumerate(scenes):
        scene.rows[1]["hard_negatives"] = [f"wrong {number} {n}" for n in range(3)]
    write_longgrit(tmp_path, scenes)
    (batch,) = epoch_of(open_fgpart(tmp_path, hard_negatives=2, long_part_share=0.0))
    assert batch.negative_of_m.tolist() == [0, 0, 2, 2, 4, 4]
    number = {scene.key: n for n, scene in enumerate(scenes)}
    texts = [f"wrong {number[key]} {n}" for key in batch.image_ids for n in range(2)]
    assert torch.equal(batch.negatives_ml, words(texts))
    for changes in ({}, {"hard_negatives": 2, "long_part_share": 1.0}):
        (batch,) = epoch_of(open_fgpart(tmp_path, **changes))
        assert batch.negatives_ml.shape[0] == len(batch.negative_of_m) == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_together_see_what_one_rank_sees(fgpart, num_workers):
    folder, _ = fgpart
    data = open_fgpart(folder, batch_size=6)
    (whole,) = epoch_of(data, 1)
    halves = [
        epoch_of(data, 1, rank=rank, num_ranks=2, num_workers=num_workers)[0] for rank in (0, 1)
    ]
    assert [*halves[0].image_ids, *halves[1].image_ids] == whole.image_ids
    crops = torch.cat([half.crops_kCHW for half in halves])
    assert torch.equal(crops, whole.crops_kCHW)
    assert torch.equal(torch.cat([half.part_ids_s2 for half in halves]), whole.part_ids_s2)
    assert len(halves[0].has_part_s) == len(halves[1].has_part_s)


def test_without_parts_none_is_cut_out(fgpart):
    folder, _ = fgpart
    for batch in epoch_of(open_fgpart(folder, parts_per_image=0)):
        assert len(batch.crops_kCHW) == len(batch.has_part_s) == 0


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    scenes = write_fgpart(tmp_path, counts=(1, 2, 3))
    broken = scenes[1].jpeg[:200]
    for shard in tmp_path.glob("train/*.tar"):
        content = shard.read_bytes()
        shard.write_bytes(content.replace(scenes[1].jpeg, broken.ljust(len(scenes[1].jpeg), b"\0")))
    with pytest.raises(DataError, match=f"1 of 3 images .* sample {scenes[1].key}"):
        epoch_of(open_fgpart(tmp_path))


@settings(max_examples=20, deadline=None)
@given(
    left=st.integers(0, 50),
    top=st.integers(0, 36),
    width=st.floats(0.5, 40),
    height=st.floats(0.5, 30),
    margin=st.floats(0, 1),
)
def test_a_crop_holds_its_part_and_stays_inside_the_image(
    tmp_path_factory, left, top, width, height, margin
):
    folder = tmp_path_factory.mktemp("crops")
    scene = part_scene(0, 1)
    box = [float(left), float(top), min(left + width, 60.0), min(top + height, 44.0)]
    scene.rows[1]["box_xyxy"] = box
    write_longgrit(folder, [scene])
    preprocess = Preprocess(SIZE_PX, PreprocessConfig(crop_margin=margin))
    (batch,) = epoch_of(open_fgpart(folder, preprocess, batch_size=1))
    image = Image.open(io.BytesIO(scene.jpeg)).convert("RGB")
    extra_x, extra_y = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    window = (
        max(0, int(np.floor(box[0] - extra_x))),
        max(0, int(np.floor(box[1] - extra_y))),
        min(60, int(np.ceil(box[2] + extra_x))),
        min(44, int(np.ceil(box[3] + extra_y))),
    )
    assert window[0] <= box[0] < box[2] <= window[2]
    assert torch.equal(batch.crops_kCHW[0], preprocess.image(image.crop(window)))
