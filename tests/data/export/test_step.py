import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from components.core.digests import file_digests
from components.core.errors import InputError
from components.core.shards import write_shard
from components.core.step import load_step
from components.data.export import read_samples
from pixclip.masks import Rle, decode_mask

EXPORT = load_step("export")
NUM_IMAGES = {"train": 5, "val": 1, "benchmark": 2}


def export(dataset, name="exports", **settings):
    exports = dataset.parent / name
    exports.mkdir()
    EXPORT.function(dataset=dataset, exports=exports, settings=EXPORT.settings_type(**settings))
    return exports


def all_regions(dataset, split):
    return [region for s in read_samples(dataset, split) for region in s.content["regions"]]


def test_samples_are_read_in_order_over_all_shards(dataset):
    captions = [sample.content["caption"] for sample in read_samples(dataset, "train")]
    assert captions == [f"picture {number}" for number in range(5)]


@pytest.mark.parametrize("split", NUM_IMAGES)
def test_pycocotools_opens_every_split_with_masks_and_captions(dataset, split):
    folder = export(dataset) / "coco"
    coco = COCO(folder / f"{split}.json")
    assert len(coco.imgs) == NUM_IMAGES[split]
    regions = all_regions(dataset, split)
    assert len(coco.anns) == len(regions)
    for annotation, region in zip(coco.anns.values(), regions, strict=True):
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width, y + height] == region["box_xyxy"]
        mask = decode_mask(Rle(*region["mask"]["size"], region["mask"]["counts"]))
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        for name in ("region_id", "phrase", "long_caption", "short_caption"):
            assert annotation[name] == region[name]
        image = coco.imgs[annotation["image_id"]]
        with Image.open(folder / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (64, 48)


def test_coco_numbers_are_unique_over_the_splits(dataset):
    folder = export(dataset) / "coco"
    contents = [json.loads((folder / f"{split}.json").read_text()) for split in NUM_IMAGES]
    for name, number in (("images", 8), ("annotations", 16)):
        assert len({item["id"] for content in contents for item in content[name]}) == number


def test_datasets_opens_the_parquet_with_decoded_images(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    folder = export(dataset, images_per_file=2) / "huggingface"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == NUM_IMAGES
    for split in NUM_IMAGES:
        for row, sample in zip(loaded[split], read_samples(dataset, split), strict=True):
            np.testing.assert_array_equal(row["image"], Image.open(io.BytesIO(sample.jpeg)))
            assert row["caption"] == sample.content["caption"]
            for found, region in zip(row["regions"], sample.content["regions"], strict=True):
                assert json.loads(found["provenance"]) == region["provenance"]
                assert found == {**region, "provenance": found["provenance"]}


def test_parquet_files_hold_no_more_images_than_set(dataset):
    data = export(dataset, images_per_file=2) / "huggingface" / "data"
    rows = {path.name: pq.read_metadata(path).num_rows for path in sorted(data.iterdir())}
    assert rows == {
        "benchmark-00000-of-00001.parquet": 2,
        "train-00000-of-00003.parquet": 2,
        "train-00001-of-00003.parquet": 2,
        "train-00002-of-00003.parquet": 1,
        "val-00000-of-00001.parquet": 1,
    }


def test_the_same_data_set_gives_the_same_bytes(dataset):
    assert file_digests(export(dataset, "a")) == file_digests(export(dataset, "b"))


def test_an_export_over_the_remains_of_a_killed_one_gives_the_same_bytes(dataset):
    whole = export(dataset)
    remains = dataset.parent / "remains"
    (remains / "coco").mkdir(parents=True)
    (remains / "coco/train.json").write_text('{"half":')
    (remains / "coco/train.images").write_text("half")
    EXPORT.function(dataset=dataset, exports=remains, settings=EXPORT.settings_type())
    assert file_digests(remains) == file_digests(whole)


def test_a_split_without_images_gives_an_empty_coco_file_and_no_parquet(dataset, tmp_path):
    for path in (dataset / "val").iterdir():
        path.unlink()
    exports = export(dataset)
    assert json.loads((exports / "coco/val.json").read_text())["annotations"] == []
    assert not list((exports / "huggingface/data").glob("val-*"))
    assert "val-" not in (exports / "huggingface/README.md").read_text()


@pytest.mark.parametrize("name", ["../evil.jpg", "a/b.jpg", "a.exe", "..", "a.tar.gz"])
def test_a_shard_that_holds_anything_else_is_refused(dataset, name):
    with tarfile.open(dataset / "val" / "00000.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match="no part of a sample"):
        list(read_samples(dataset, "val"))


def test_two_halves_of_different_samples_are_not_joined(dataset):
    samples = [{"__key__": "a", "jpg": b"x"}, {"__key__": "b", "json": {}}]
    write_shard(dataset / "val" / "00000.tar", samples)
    with pytest.raises(InputError, match="not one sample"):
        list(read_samples(dataset, "val"))
