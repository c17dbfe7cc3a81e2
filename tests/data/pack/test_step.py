import io
import json
import shutil
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.digests import file_digests
from components.core.errors import InputError, SettingsError
from components.core.run import run_step
from components.core.step import load_step
from components.data.pack.settings import PackSettings
from data_contracts.longgrit import SCHEMA
from pixclip.masks import Rle, decode_mask

PACK = load_step("pack")
SETTINGS = {"images_per_shard": 4, "val_share": 0.3, "benchmark_max_share": 0.3}


def pack(run, **settings):
    longgrit = run.folder / "longgrit"
    longgrit.mkdir(exist_ok=True)
    PACK.function(**run.inputs, longgrit=longgrit, settings=PackSettings(**SETTINGS | settings))
    return longgrit


def read_tars(longgrit):
    """(shard, key) -> (jpeg bytes, JSON), in order."""
    samples = {}
    for path in sorted(longgrit.rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = member.name.split(".")
                samples.setdefault((str(path.relative_to(longgrit)), key), {})[extension] = (
                    tar.extractfile(member).read()
                )
    return {place: (parts["jpg"], json.loads(parts["json"])) for place, parts in samples.items()}


def published(folder):
    return {name: digest for name, digest in file_digests(folder).items() if "_work/" not in name}


def test_the_published_data_set_meets_its_contract_and_counts_every_region(make_run):
    run = make_run()
    longgrit = run.folder / "longgrit"
    receipt = run_step(PACK, run.inputs, {"longgrit": longgrit}, SETTINGS)
    assert receipt.contracts.keys() == {"longgrit"}
    assert receipt.metrics["regions_in"] == receipt.metrics["regions_out"] == len(run.rows) == 36
    assert receipt.metrics["num_images"] == 12
    by_split = (receipt.metrics[f"regions_{split}"] for split in ("train", "val", "benchmark"))
    assert sum(by_split) == 36
    assert not (longgrit / "_work").exists()


def test_a_sample_holds_the_image_and_all_its_regions(make_run):
    run = make_run()
    samples = read_tars(pack(run))
    rows = {row["region_id"]: row for row in run.rows}
    seen = []
    for (_, key), (jpeg, content) in samples.items():
        assert content["image_id"] == key
        size = Image.open(io.BytesIO(jpeg)).size
        assert size == (content["width_px"], content["height_px"])
        for region in content["regions"]:
            row = rows[region["region_id"]]
            assert row["image_sha256"] == key
            for name in ("phrase", "box_xyxy", "object_caption", "long_caption", "short_caption"):
                assert region[name] == row[name]
            mask = decode_mask(Rle(*region["mask"]["size"], region["mask"]["counts"]))
            assert mask.sum() == row["mask_area_px"]
            assert region["provenance"]["mask"]["source"] == "record"
            assert region["provenance"]["merge"]["describer"] == "embedded"
            seen.append(region["region_id"])
    assert sorted(seen) == sorted(rows)


def test_the_regions_of_an_image_stand_in_their_order(make_run):
    for _, content in read_tars(pack(make_run())).values():
        names = [region["region_id"] for region in content["regions"]]
        assert names == sorted(names)


def test_the_manifest_lists_every_region_where_it_is(make_run):
    longgrit = pack(make_run())
    samples = read_tars(longgrit)
    table = pq.read_table(longgrit / "manifest.parquet")
    assert table.schema.equals(SCHEMA)
    for row in table.to_pylist():
        _, content = samples[row["shard"], row["key"]]
        region = next(r for r in content["regions"] if r["region_id"] == row["region_id"])
        assert row["shard"].split("/")[0] == row["split"]
        assert row["long_caption_words"] == len(region["long_caption"].split())


def test_no_shard_holds_more_images_than_set(make_run):
    longgrit = pack(make_run(), images_per_shard=2, val_share=0, benchmark_regions=0)
    with tarfile.open(longgrit / "train" / "00000.tar") as tar:
        assert len(tar.getnames()) == 2 * 2
    names = [path.name for path in sorted((longgrit / "train").iterdir())]
    assert names == [f"0000{index}.tar" for index in range(6)]


def test_shards_mix_the_groups_of_the_source(make_run):
    run = make_run(num_images=30, num_groups=2)
    longgrit = pack(run, images_per_shard=10, val_share=0, benchmark_regions=0)
    group_of = {row["image_sha256"]: int(row["record_id"]) // 15 for row in run.rows}
    for shard in ("train/00000.tar", "train/00001.tar", "train/00002.tar"):
        groups = {group_of[key] for name, key in read_tars(longgrit) if name == shard}
        assert groups == {0, 1}


def test_the_same_captions_give_the_same_bytes_however_they_are_grouped(make_run):
    first, second = make_run("a", num_groups=2), make_run("b", num_groups=3)
    assert published(pack(first)) == published(pack(second))


def test_another_seed_gives_another_order(make_run):
    run = make_run()
    first = list(read_tars(pack(run)))
    shutil.rmtree(run.folder / "longgrit")
    assert list(read_tars(pack(run, seed=1))) != first


def test_a_killed_run_goes_on_where_it_stopped(make_run):
    run = make_run()
    longgrit = pack(run, val_share=0, benchmark_regions=0)
    whole = published(longgrit)
    inode = (longgrit / "train/00000.tar").stat().st_ino
    # As a kill in the middle of the second shard leaves it.
    (longgrit / "_work/parts/train-00001.parquet").unlink()
    (longgrit / "train/00001.tar").rename(longgrit / "train/.00001.tar.partial")
    for name in ("manifest.parquet", "README.md", "report.html", "train/00002.tar"):
        (longgrit / name).unlink()
    (longgrit / "_work/parts/train-00002.parquet").unlink()
    assert published(pack(run, val_share=0, benchmark_regions=0)) == whole
    assert (longgrit / "train/00000.tar").stat().st_ino == inode


def test_half_sorted_rows_of_a_killed_run_are_sorted_again(make_run):
    run = make_run()
    whole = published(pack(run))
    shutil.rmtree(run.folder / "longgrit")
    buckets = run.folder / "longgrit" / "_work" / "buckets"
    buckets.mkdir(parents=True)
    (buckets / "train-00000.tar.jsonl").write_text('{"image_sha256": "half a row')
    assert published(pack(run)) == whole


def test_a_caption_without_its_image_is_an_error(make_run):
    run = make_run()
    shutil.rmtree(run.folder / "images" / "00001")
    with pytest.raises(InputError, match=r"images hold no [0-9a-f]{64}\.jpg"):
        pack(run)


def test_an_image_marked_for_two_splits_is_an_error(make_run):
    def mark_one_region(row, number):
        if row["region_id"] == "3-01":
            row["split"] = "benchmark"

    with pytest.raises(InputError, match="two splits"):
        pack(make_run(change=mark_one_region))


def test_no_caption_at_all_is_an_error(make_run):
    run = make_run(num_images=4, num_groups=1)
    table = pq.read_table(run.folder / "captions" / "00000" / "part-00000.parquet")
    pq.write_table(table.slice(0, 0), run.folder / "captions" / "00000" / "part-00000.parquet")
    with pytest.raises(InputError, match="no region to pack"):
        pack(run)


def test_a_source_without_rejected_regions_can_be_packed(make_run):
    run = make_run()
    shutil.rmtree(run.folder / "quarantine")
    (run.folder / "quarantine").mkdir()
    assert "No step rejected anything" in (pack(run) / "report.html").read_text()


def test_an_unknown_source_is_refused_by_name(make_run):
    run = make_run()
    with pytest.raises(SettingsError, match=r"pack\.source"):
        run_step(PACK, run.inputs, {"longgrit": run.folder / "x"}, {"source": "the web"})
