import pytest

from components.core.errors import InputError
from components.core.step import load_step
from components.core.tables import read_rows, write_rows
from components.data.deduplicate.step import DeduplicateSettings, deduplicate
from data_contracts import images as images_form
from data_contracts import records as records_form


def region(number, url, split="", **changes):
    return {
        "region_id": f"{number}-00",
        "record_id": str(number),
        "url": url,
        "image_caption": "a caption",
        "phrase": "a thing",
        "box_norm": [0.1, 0.1, 0.9, 0.9],
        "score": 0.9,
        "clip_similarity": 0.3,
        "split": split,
        "subset": "",
        **changes,
    }


def picture(url, content, phash=None):
    """A manifest row; `content` decides the bytes and, unless given, a hash far from others."""
    if content is None:
        return {"url": url, "status": "failed", "reason": "http_404", "detail": ""}
    return {
        "url": url,
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": f"{content:064x}",
        "shard": "00000.tar",
        "num_bytes": 10,
        "width_px": 200,
        "height_px": 100,
        "phash": f"{phash if phash is not None else content * 0x0123456789ABCDEF:016x}",
        "stored_width": 200,
        "stored_height": 100,
        "orientation": 1,
    }


@pytest.fixture
def run(tmp_path):
    """Run the step on groups, each a pair of region rows and manifest rows."""

    def run_deduplicate(*groups, **settings):
        for number, (regions, pictures) in enumerate(groups):
            group = f"{number:05d}"
            records = tmp_path / "records" / group / "part-00000.parquet"
            write_rows(records, regions, records_form.SCHEMA)
            manifest = tmp_path / "images" / group / "manifest.parquet"
            write_rows(manifest, pictures, images_form.SCHEMA)
        names = ("records", "images", "candidates", "quarantine.parquet")
        paths = [tmp_path / name for name in names]
        metrics = deduplicate.function(*paths, settings=DeduplicateSettings(**settings))
        kept = {row["region_id"]: row for row in read_rows(paths[2])}
        dropped = {row["region_id"]: row for row in read_rows(paths[3])}
        return kept, dropped, metrics

    return run_deduplicate


def test_the_step_is_found_by_its_name():
    assert load_step("deduplicate") is deduplicate


def test_a_candidate_knows_its_image_and_its_box_in_pixels(run):
    kept, _, _ = run(([region(1, "http://a")], [picture("http://a", 1)]))
    row = kept["1-00"]
    assert row["box_xyxy"] == pytest.approx([20, 10, 180, 90])
    assert (row["image_width_px"], row["image_height_px"]) == (200, 100)
    assert (row["image_sha256"], row["image_shard"]) == (f"{1:064x}", "00000.tar")


def test_duplicates_are_found_across_groups_and_name_what_is_kept(run):
    first = (
        [region(1, "http://a"), region(2, "http://b")],
        [
            picture("http://a", 1, 0),
            picture("http://b", 2, 0xFFFFFF),
        ],
    )
    second = (
        [region(3, "http://c"), region(4, "http://d")],
        [
            picture("http://c", 1, 0),
            picture("http://d", 3, 0xFFFFFE),
        ],
    )
    kept, dropped, metrics = run(first, second)
    assert set(kept) == {"1-00", "2-00"}
    assert dropped["3-00"]["reason"] == "duplicate_image"
    assert f"{1:064x}" in dropped["3-00"]["detail"]
    assert dropped["4-00"]["reason"] == "near_duplicate_image"
    assert f"{2:064x}" in dropped["4-00"]["detail"]
    assert dropped["4-00"]["image_sha256"] == f"{3:064x}"
    assert (metrics["images"], metrics["images_kept"]) == (4, 2)


def test_the_benchmark_keeps_its_image_and_training_loses_the_twin(run):
    train = [region(1, "http://a", "train")], [picture("http://a", 1, 0)]
    bench = [region(2, "http://b", "benchmark")], [picture("http://b", 2, 1)]
    kept, dropped, _ = run(train, bench)
    assert (set(kept), set(dropped)) == ({"2-00"}, {"1-00"})


def test_two_records_of_one_url_share_its_image(run):
    kept, dropped, _ = run(
        ([region(1, "http://a"), region(2, "http://a")], [picture("http://a", 1)])
    )
    assert (set(kept), set(dropped)) == ({"1-00", "2-00"}, set())


def test_regions_are_counted_by_reason_and_lost_images_not_again(run):
    regions = [
        region(1, "http://a"),
        region(2, "http://lost"),
        region(3, "http://a", box_norm=[0.5, 0.5, 0.51, 0.6]),
        region(4, "http://a", mask_counts="x", mask_size=[200, 100]),
        region(5, "http://b"),
    ]
    pictures = [picture("http://a", 1), picture("http://lost", None), picture("http://b", 1)]
    kept, dropped, metrics = run((regions, pictures))
    assert set(kept) == {"1-00"}
    assert {key: row["reason"] for key, row in dropped.items()} == {
        "3-00": "tiny_box",
        "4-00": "mask_size_mismatch",
        "5-00": "duplicate_image",
    }
    assert (metrics["regions_in"], metrics["regions_out"]) == (4, 1)
    assert metrics["regions_quarantined"] == 3


def test_every_group_gets_its_table_even_an_empty_one(run, tmp_path):
    run(
        ([region(1, "http://a")], [picture("http://a", 1)]),
        ([region(2, "http://b")], [picture("http://b", 1)]),
        ([], []),
    )
    tables = sorted((tmp_path / "candidates").rglob("*.parquet"))
    assert [path.parent.name for path in tables] == ["00000", "00001", "00002"]


def test_records_and_images_that_do_not_belong_together_are_refused(run):
    with pytest.raises(InputError, match="knows nothing of http://other"):
        run(([region(1, "http://other")], [picture("http://a", 1)]))


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    groups = ([region(1, "http://a")], [picture("http://a", 1)])
    run(groups)
    table = tmp_path / "candidates" / "00000" / "part-00000.parquet"
    first = table.read_bytes()
    run(groups)
    assert table.read_bytes() == first


def turned_picture(url, content, orientation):
    size = {"width_px": 100, "height_px": 200} if orientation >= 5 else {}
    return {**picture(url, content), **size, "orientation": orientation}


def test_boxes_of_stored_pixels_turn_with_their_photographs_and_tell_of_the_others(run):
    urls = {1: "http://a", 3: "http://b", 6: "http://c", 8: "http://d"}
    regions = [
        region(
            n,
            url,
            box_norm=[0.1, 0.2, 0.5, 0.9],
            point_norm=[0.1, 0.2],  # the box's first corner as it is stored
            declared_size=[100, 200],
        )
        for n, url in urls.items()
    ]
    kept, _, metrics = run((regions, [turned_picture(url, n, n) for n, url in urls.items()]))
    assert {key: row["box_xyxy"] for key, row in kept.items()} == {
        "1-00": pytest.approx([20, 20, 100, 90]),
        "3-00": pytest.approx([100, 10, 180, 80]),
        "6-00": pytest.approx([10, 20, 80, 100]),
        "8-00": pytest.approx([20, 100, 90, 180]),
    }
    assert {key: row["point_xy"] for key, row in kept.items()} == {
        "1-00": pytest.approx([20, 20]),
        "3-00": pytest.approx([180, 80]),
        "6-00": pytest.approx([80, 20]),
        "8-00": pytest.approx([20, 180]),
    }
    assert (metrics["regions_turned"], metrics["regions_read_as_stored"]) == (3, 1)


def test_a_photograph_that_nobody_tells_of_is_quarantined_unless_the_settings_do(run):
    group = [region(3, "http://b", declared_size=[100, 200])], [turned_picture("http://b", 1, 3)]
    _, dropped, metrics = run(group)
    assert dropped["3-00"]["reason"] == "orientation_undecided"
    assert metrics["quarantined.orientation_undecided"] == 1
    kept, _, metrics = run(group, turned_boxes="upright")
    assert kept["3-00"]["box_xyxy"] == pytest.approx([20, 10, 180, 90])
    assert (metrics["regions_turned"], metrics["regions_read_as_upright"]) == (0, 1)


def test_a_file_of_another_size_is_quarantined_with_both_sizes(run):
    regions = [region(1, "file:///a.jpg", declared_size=[50, 100])]
    _, dropped, _ = run((regions, [picture("file:///a.jpg", 1)]))
    assert dropped["1-00"]["reason"] == "image_size_mismatch"
    assert "declared 100 x 50, but the image is 200 x 100" in dropped["1-00"]["detail"]
