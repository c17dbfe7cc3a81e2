import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from components.core.shards import write_shard
from components.data.pack.writer import sample_json
from pixclip.data.config import DataConfig
from pixclip.data.errors import DataError
from pixclip.data.loader import LongGrit
from pixclip.data.order import draw, read_index
from pixclip.data.samples import Sample
from pixclip.data.shards import iterate_images
from pixclip.data.store import Store
from pixclip.inputs import as_image, as_mask
from pixclip.masks import encode_mask
from pixclip.text.embeddings import caption_hash
from tests.pixclip.data.part_world import write_fgpart
from tests.pixclip.data.world import (
    PREPROCESS,
    SIZE_PX,
    HashVectors,
    Scene,
    draw_scene,
    open_longgrit,
    region_json,
    write_longgrit,
)
from tests.pixclip.tiny_models import tiny_model

NUM_REGIONS = 23


def assert_equal(first, second):
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same, field.name


def by_region(batches):
    """What each region became: its tensors, from batches of any grouping."""
    found = {}
    for batch in batches:
        for place, region_id in enumerate(batch.region_ids):
            assert region_id not in found
            found[region_id] = {
                "image": batch.images_UCHW[batch.image_index_B[place]],
                "mask": batch.masks_B1HW[place],
                "crop": None if batch.crops_BCHW is None else batch.crops_BCHW[place],
                "crop_mask": None
                if batch.crop_masks_B1HW is None
                else batch.crop_masks_B1HW[place],
                "coverage": batch.coverage_BP[place],
                "text": batch.texts_BE[place],
                "text_id": batch.text_ids_B[place],
                "is_full_image": bool(batch.is_full_image_B[place]),
            }
    return found


def test_an_image_without_a_caption_is_never_drawn_whole(tmp_path):
    scenes = [draw_scene(number, 2) for number in range(3)]
    for row in scenes[1].rows:
        row["image_caption"] = " "
    data = open_longgrit(write_longgrit(tmp_path, scenes), full_image_share=1.0)
    (batch,) = data.batches(epoch=0)
    is_whole = dict(zip(batch.region_ids, batch.is_full_image_B.tolist(), strict=True))
    assert is_whole == {f"{scene}-{n:02d}": scene != 1 for scene in range(3) for n in range(2)}


def at(tensor, place):
    return None if tensor is None else tensor[place]


def in_order(batches):
    return [region_id for batch in batches for region_id in batch.region_ids]


def vector(text):
    return HashVectors().lookup([caption_hash(text)])[0]


def test_every_region_of_an_epoch_comes_once(longgrit, scenes):
    data = open_longgrit(longgrit, batch_size=1)
    expected = {row["region_id"] for scene in scenes for row in scene.rows}
    assert data.num_steps(0) == NUM_REGIONS
    assert set(by_region(data.batches(epoch=0))) == expected


def test_a_batch_that_is_not_full_is_dropped(longgrit):
    data = open_longgrit(longgrit)
    assert data.num_steps(0) == 3
    assert [len(batch.region_ids) for batch in data.batches(epoch=0)] == [6, 6, 6]


def test_training_sees_what_inference_sees_bit_for_bit(longgrit, scenes):
    data = open_longgrit(longgrit, batch_size=1, full_image_share=0.0)
    seen = by_region(data.batches(epoch=0))
    for scene in scenes:
        image = as_image(scene.jpeg)
        for index, row in enumerate(scene.rows):
            mask = as_mask(region_json(scene, index)["mask"], image.height, image.width)
            crop, crop_mask = PREPROCESS.crop(image, mask)
            made = seen[row["region_id"]]
            assert torch.equal(made["image"], PREPROCESS.image(image))
            assert torch.equal(made["mask"], PREPROCESS.mask(mask))
            assert torch.equal(made["crop"], PREPROCESS.image(crop))
            assert torch.equal(made["crop_mask"], PREPROCESS.mask(crop_mask))
            assert torch.equal(made["coverage"], PREPROCESS.coverage(mask, 8))


def test_the_model_gets_the_tensors_that_it_was_trained_on(longgrit, scenes, monkeypatch):
    model = tiny_model()
    preprocess, patch_px = model.preprocess, model.config.vision.patch_size_px
    config = DataConfig(batch_size=1, full_image_share=0.0)
    data = LongGrit(longgrit, "train", preprocess, patch_px, HashVectors(), config)
    trained = by_region(data.batches(epoch=0))
    seen = []
    tokens = model.vision.tokens_of_regions
    monkeypatch.setattr(
        model.vision, "tokens_of_regions", lambda *given: seen.append(given) or tokens(*given)
    )
    scene = scenes[3]
    masks = [region_json(scene, index)["mask"] for index in range(len(scene.rows))]
    model.encode_image(as_image(scene.jpeg), masks)
    ((images_UCHW, masks_B1HW, _),) = seen
    for row, mask_1HW in zip(scene.rows, masks_B1HW, strict=True):
        assert torch.equal(mask_1HW, trained[row["region_id"]]["mask"])
        assert torch.equal(images_UCHW[0], trained[row["region_id"]]["image"])


def test_a_full_image_sample_has_a_full_mask_and_the_images_caption(longgrit, scenes):
    data = open_longgrit(longgrit, batch_size=1, full_image_share=1.0)
    seen = by_region(data.batches(epoch=0))
    for scene in scenes:
        made = seen[scene.rows[0]["region_id"]]
        assert made["is_full_image"]
        assert torch.equal(made["mask"], PREPROCESS.full_mask())
        assert torch.equal(made["crop"], made["image"])
        assert torch.equal(made["crop_mask"], PREPROCESS.full_mask())
        assert made["coverage"].eq(1).all()
        assert torch.equal(made["text"], vector(scene.rows[0]["image_caption"]))


@pytest.mark.parametrize(("share", "name"), [(1.0, "long"), (0.0, "short")])
def test_a_whole_image_that_was_described_has_that_caption(tmp_path, share, name):
    scenes = write_fgpart(tmp_path, (2, 1))
    options = {"full_image_share": 1.0, "long_caption_share": share}
    seen = by_region(open_longgrit(tmp_path, batch_size=1, **options).batches(epoch=0))
    for row in (row for scene in scenes for row in scene.rows):
        described = f"{name} of {row['region_id'].removesuffix('-image')[:-1]}0"
        assert torch.equal(seen[row["region_id"]]["text"], vector(described))


def test_a_region_that_is_the_image_counts_as_a_whole_image_and_keeps_its_mask(tmp_path):
    scenes = write_fgpart(tmp_path, (2, 1))
    data = open_longgrit(tmp_path, batch_size=1, full_image_share=0.0, long_caption_share=1.0)
    seen = by_region(data.batches(epoch=0))
    for row in (row for scene in scenes for row in scene.rows):
        made, is_image = seen[row["region_id"]], row["box_source"] == "image"
        assert made["is_full_image"] == is_image
        assert torch.equal(made["mask"], PREPROCESS.full_mask()) == is_image
        assert torch.equal(made["text"], vector(row["long_caption"]))


def test_an_epoch_ends_where_its_regions_of_an_image_do(tmp_path):
    write_fgpart(tmp_path, (4, 2, 0))
    data = open_longgrit(tmp_path, batch_size=1, regions_per_epoch=2)
    assert data.num_steps(0) == len(list(data.batches(epoch=0))) == 2 + 2 + 1


@pytest.mark.parametrize(("share", "name"), [(1.0, "long"), (0.0, "short")])
def test_the_text_is_the_long_or_the_short_caption(longgrit, share, name):
    data = open_longgrit(longgrit, batch_size=1, full_image_share=0.0, long_caption_share=share)
    for region_id, made in by_region(data.batches(epoch=0)).items():
        assert torch.equal(made["text"], vector(f"{name} {region_id}"))


def test_shares_are_kept_on_average(longgrit):
    config = DataConfig(full_image_share=0.25, long_caption_share=0.5)
    sample = next(iterate_images(longgrit, "train"))
    drawn = [draw(config, epoch, sample, sample.regions[0]) for epoch in range(2000)]
    num_full = sum(one.is_full_image for one in drawn)
    num_long = sum(one.text == sample.regions[0].long_caption for one in drawn)
    assert num_full / 2000 == pytest.approx(0.25, abs=0.04)
    assert num_long / 2000 == pytest.approx(0.375, abs=0.04)


def test_wrong_captions_come_with_the_short_caption_alone_and_only_if_wanted(tmp_path):
    scenes = [draw_scene(number, 2) for number in range(3)]
    for number, scene in enumerate(scenes):
        scene.rows[1]["hard_negatives"] = [f"wrong {number}-01 {n}" for n in range(3)]
    write_longgrit(tmp_path, scenes)

    def only_batch(**config):
        (batch,) = open_longgrit(tmp_path, full_image_share=0.0, **config).batches(epoch=0)
        return batch

    wanted = only_batch(long_caption_share=0.0, hard_negatives=2)
    told = [region for region in wanted.region_ids if region.endswith("-01")]
    assert len(told) == 3
    expected = [vector(f"wrong {region} {n}") for region in told for n in range(2)]
    assert torch.equal(wanted.negatives_ME, torch.stack(expected))
    assert [wanted.region_ids[n] for n in wanted.negative_of_M] == [r for r in told for _ in "12"]
    assert len(only_batch(long_caption_share=1.0, hard_negatives=2).negatives_ME) == 0
    plain = only_batch(long_caption_share=0.0)
    assert plain.negatives_ME is plain.negative_of_M is None
    assert torch.equal(plain.texts_BE, wanted.texts_BE)


def test_texts_have_one_id_where_they_are_equal(longgrit):
    batch = next(open_longgrit(longgrit, full_image_share=1.0).batches(epoch=0))
    same_text = (batch.texts_BE[:, None] == batch.texts_BE[None]).all(dim=-1)
    assert torch.equal(batch.text_ids_B[:, None] == batch.text_ids_B[None], same_text)


def test_an_epoch_is_the_same_again_and_another_epoch_or_seed_is_not(longgrit):
    first, again = (list(open_longgrit(longgrit).batches(epoch=1)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert_equal(one, other)
    assert in_order(open_longgrit(longgrit).batches(epoch=2)) != in_order(first)
    assert in_order(open_longgrit(longgrit, seed=5).batches(epoch=1)) != in_order(first)


def test_what_a_region_becomes_depends_on_nothing_but_seed_and_epoch(longgrit):
    one = by_region(open_longgrit(longgrit, batch_size=1).batches(epoch=3))
    other = by_region(
        open_longgrit(longgrit, batch_size=23, regions_per_image=4, shuffle_shards=9).batches(
            epoch=3
        )
    )
    for region_id, made in one.items():
        for name, value in made.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[region_id][name]))


def test_workers_make_the_same_batches(longgrit):
    data = open_longgrit(longgrit)
    alone = list(data.batches(epoch=0))
    helped = list(data.batches(epoch=0, num_workers=2))
    for one, other in zip(alone, helped, strict=True):
        assert_equal(one, other)


def test_the_trainers_random_numbers_are_left_alone(longgrit):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(open_longgrit(longgrit).batches(epoch=0, num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_ranks_together_see_what_one_rank_sees(longgrit, num_ranks):
    data = open_longgrit(longgrit, regions_per_image=2)
    whole = list(data.batches(epoch=0))
    parts = [
        list(data.batches(epoch=0, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)
    ]
    for step, batch in enumerate(whole):
        here = [part[step] for part in parts]
        assert in_order(here) == batch.region_ids
        assert torch.equal(torch.cat([part.masks_B1HW for part in here]), batch.masks_B1HW)
        assert torch.equal(torch.cat([part.texts_BE for part in here]), batch.texts_BE)
        images = torch.cat([part.images_UCHW[part.image_index_B] for part in here])
        assert torch.equal(images, batch.images_UCHW[batch.image_index_B])


def test_a_batch_that_ranks_cannot_share_is_refused(longgrit):
    with pytest.raises(ValueError, match="batch_size=6 cannot be divided among 4"):
        next(open_longgrit(longgrit).batches(epoch=0, num_ranks=4))


def test_a_restart_goes_on_with_the_same_batches_and_reads_nothing_before(
    longgrit, tmp_path, monkeypatch
):
    data = open_longgrit(longgrit)
    whole = list(data.batches(epoch=1))
    needed = {region_id.split("-")[0] for region_id in whole[2].region_ids}
    decoded = []
    decode = Sample.pixels
    monkeypatch.setattr(
        Sample, "pixels", lambda self, shrink: decoded.append(self) or decode(self, shrink)
    )
    (rest,) = open_longgrit(longgrit).batches(epoch=1, start_step=2)
    assert_equal(rest, whole[2])
    assert {sample.caption.removeprefix("picture ") for sample in decoded} == needed


def test_an_image_is_decoded_once_for_all_its_regions_in_a_batch(longgrit):
    for batch in open_longgrit(longgrit, regions_per_image=4).batches(epoch=0):
        pictures = [region_id.split("-")[0] for region_id in batch.region_ids]
        assert len(batch.images_UCHW) == len(set(pictures))
        assert [pictures[i] == pictures[0] for i in range(6)] == (
            batch.image_index_B == batch.image_index_B[0]
        ).tolist()


def test_crops_are_made_only_if_wanted(longgrit):
    batch = next(open_longgrit(longgrit, needs_crops=False).batches(epoch=0))
    assert batch.crops_BCHW is None
    assert batch.crop_masks_B1HW is None


def test_a_batch_moves_whole(longgrit):
    batch = next(open_longgrit(longgrit).batches(epoch=0)).to("meta")
    assert {
        value.device.type
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    } == {"meta"}
    assert batch.masks_B1HW.shape == (6, 1, SIZE_PX, SIZE_PX)


def damage(folder, scenes, change):
    """The data set with one sample changed after packing: its first scene."""
    write_longgrit(folder, scenes, per_shard=100)
    packed = [
        {"__key__": scene.key, "jpg": scene.jpeg, "json": sample_json(scene.rows)}
        for scene in scenes
    ]
    change(packed[0])
    write_shard(folder / "train/00000.tar", packed)
    return folder


def cut(sample):
    sample["jpg"] = sample["jpg"][:200]


def replace_picture(sample):
    sample["jpg"] = draw_scene(99, 1, size=(20, 20)).jpeg


def resize_mask(sample):
    sample["json"]["regions"][0]["mask"]["size"] = [60, 44]


def damage_counts(sample):
    sample["json"]["regions"][0]["mask"]["counts"] = "1" * 30


def empty_mask(sample):
    height, width = sample["json"]["height_px"], sample["json"]["width_px"]
    empty = encode_mask(np.zeros((height, width), dtype=bool))
    sample["json"]["regions"][0]["mask"] = empty.as_coco()


def lose_region(sample):
    del sample["json"]["regions"][0]


def lose_caption(sample):
    del sample["json"]["caption"]


def rename(sample):
    sample["__key__"] = "f" * 64


def no_json(sample):
    sample["json"] = json.dumps(sample["json"]).encode()[:-5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "cannot be decoded: "),
        (replace_picture, "20 x 20 pixels, its sample says 60 x 44"),
        (resize_mask, "mask of 44 x 60 pixels for an image of 60 x 44"),
        (damage_counts, "region 1-00: mask counts do not cover"),
        (empty_mask, "region 1-00: the mask is empty"),
        (lose_region, "1 regions, the manifest 2"),
        (lose_caption, "description is damaged: caption is missing"),
        (rename, "no sample for a row of the manifest"),
        (no_json, "description is damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_sample_stops_the_epoch_and_is_named(tmp_path, change, message):
    scenes: list[Scene] = [draw_scene(number, 2) for number in (1, 2, 3)]
    data = open_longgrit(damage(tmp_path, scenes, change), full_image_share=0.0)
    with pytest.raises(DataError, match=f"^1 of 3 images .*shard train/00000.tar.*{message}"):
        list(data.batches(epoch=0))


def test_a_worker_tells_of_a_damaged_sample_too(tmp_path):
    scenes = [draw_scene(number, 2) for number in (1, 2, 3)]
    data = open_longgrit(damage(tmp_path, scenes, cut))
    with pytest.raises(DataError, match=f"shard train/00000.tar, sample {scenes[0].key}"):
        list(data.batches(epoch=0, num_workers=1))


def test_a_split_that_is_not_there_is_refused(tmp_path, longgrit):
    (tmp_path / "manifest.parquet").write_bytes((longgrit / "manifest.parquet").read_bytes())
    with pytest.raises(DataError, match="no split 'val'"):
        read_index(Store(longgrit), "val")
    with pytest.raises(DataError, match=r"no file train/0000\d.tar"):
        list(open_longgrit(tmp_path).batches(epoch=0))
    with pytest.raises(DataError, match=r"no file manifest.parquet"):
        open_longgrit(tmp_path / "nowhere")
