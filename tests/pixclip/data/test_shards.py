import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from components.data.pack.writer import sample_json
from pixclip.data.errors import DataError
from pixclip.data.samples import parse_sample
from pixclip.data.shards import Shards, iterate_images, key_hashes
from pixclip.data.store import Store
from pixclip.masks import decode_mask
from tests.pixclip.data.world import draw_scene, write_longgrit


def hash_of(key: str) -> int:
    return int(key_hashes(np.array([key.encode()]))[0])


def test_a_split_is_read_image_by_image_in_order(longgrit, scenes):
    found = list(iterate_images(longgrit, "train"))
    assert [sample.key for sample in found] == [scene.key for scene in scenes]
    for sample, scene in zip(found, scenes, strict=True):
        assert sample.jpeg == scene.jpeg
        assert (sample.width_px, sample.height_px) == sample.image().size == (60, 44)
        assert sample.caption == scene.rows[0]["image_caption"]
        for region, row in zip(sample.regions, scene.rows, strict=True):
            assert region.region_id == row["region_id"]
            assert region.long_caption == row["long_caption"]
            assert list(region.box_xyxy) == row["box_xyxy"]
            assert decode_mask(region.mask).sum() == row["mask_area_px"]


def test_a_sample_is_found_by_its_key(longgrit, scenes):
    shards = Shards(Store(longgrit))
    assert shards.sample("train/00001.tar", hash_of(scenes[4].key)).jpeg == scenes[4].jpeg


@pytest.mark.parametrize("key", ["a" * 64, "a" * 90 + "/" + "b" * 60, "a" * 300])
def test_shards_of_other_writers_are_read(tmp_path, key):
    """webdataset adds extended headers; long names need them."""
    scenes = [draw_scene(number, 2) for number in range(3)]
    write_longgrit(tmp_path, scenes)
    with webdataset.TarWriter(str(tmp_path / "train/00000.tar")) as writer:
        for number, scene in enumerate(scenes):
            name = scene.key if number != 1 else key
            writer.write({"__key__": name, "jpg": scene.jpeg, "json": sample_json(scene.rows)})
    found = Shards(Store(tmp_path)).sample("train/00000.tar", hash_of(key))
    assert (found.key, found.jpeg) == (key, scenes[1].jpeg)


@given(st.lists(st.text("abc-_0123456789", min_size=1, max_size=70), unique=True, min_size=1))
def test_hashes_of_keys_differ_and_do_not_depend_on_the_array(keys):
    together = key_hashes(np.array([key.encode() for key in keys]))
    assert together.tolist() == [hash_of(key) for key in keys]
    assert len(set(together.tolist())) == len(keys)


@pytest.mark.parametrize("length", [100, 700, 5000])
def test_a_shard_that_was_cut_short_is_refused(tmp_path, length):
    scenes = [draw_scene(number, 2) for number in range(3)]
    shard = write_longgrit(tmp_path, scenes) / "train/00000.tar"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(DataError, match=r"shard train/00000\.tar"):
        list(iterate_images(tmp_path, "train"))


def test_what_is_no_shard_is_refused(tmp_path):
    shard = write_longgrit(tmp_path, [draw_scene(1, 2)]) / "train/00000.tar"
    shard.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataError, match="no tar or is damaged"):
        list(iterate_images(tmp_path, "train"))


def test_a_sample_without_an_image_is_refused(tmp_path):
    shard = write_longgrit(tmp_path, [draw_scene(1, 2)]) / "train/00000.tar"
    with tarfile.open(shard, "w") as tar:
        member = tarfile.TarInfo("a.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    with pytest.raises(DataError, match="sample a: there is no jpg"):
        list(iterate_images(tmp_path, "train"))


@pytest.mark.parametrize(
    ("before", "size"),
    [
        (b"", b"-0000001000\0"),  # octal for 512 bytes back
        (tarfile.TarInfo.create_pax_global_header({"a": "b"}), b"\xff" * 10 + b"\xfe\x00"),
    ],
    ids=["plain", "extended"],
)
def test_a_member_of_negative_size_does_not_lead_around_for_ever(tmp_path, before, size):
    member = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    member[124:136] = size
    member[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(member))[0]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/00000.tar").write_bytes(before + bytes(member) + bytes(1024))
    with pytest.raises(DataError, match="negative size"):
        Shards(Store(tmp_path)).sample("train/00000.tar", 0)


@pytest.mark.parametrize("sides", [(100_000, 100_000), (-60, -44), (60.0, 44), ("60", 44)])
def test_a_sample_as_large_as_no_image_is_refused_before_its_masks_are_decoded(scenes, sides):
    description = sample_json(scenes[0].rows) | {"width_px": sides[0], "height_px": sides[1]}
    for region in description["regions"]:
        region["mask"]["size"] = sides[::-1]
    with pytest.raises(DataError, match="sample k: no image has"):
        parse_sample("s", "k", json.dumps(description).encode(), scenes[0].jpeg)
