"""CUB-200-2011 from its files to candidates, and what its tables may hold."""

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import read_rows
from pixclip.masks import Rle, decode_mask
from tests.data.detect_parts.tiny_detectors import save_owlv2
from tests.part_sources import (
    CUB_PARTS,
    NABIRDS_PARTS,
    PLACES,
    Bird,
    Machine,
    ellipse,
    put,
    write_cars,
    write_cub,
    write_nabirds,
)

NUM_SEEN = sum(part in PLACES for part in CUB_PARTS)


def edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def test_a_training_image_becomes_a_record_of_the_whole_image_and_every_visible_part(tmp_path, run):
    found = run(cub=str(write_cub(tmp_path / "data", [Bird()])))
    (row,) = found.rows
    phrases = [row["caption"][int(start) : int(end)] for start, end, *_ in row["ref_exps"]]
    assert phrases == ["bird", *(part for part in CUB_PARTS if part in PLACES)]
    assert row["ref_exps"][0][2:6] == [0, 0, 1, 1]
    assert row["box_sources"] == ["image", *["points"] * NUM_SEEN]
    seen = Bird().seen
    places = [[x / 320, y / 240] for x, y in (seen[part] for part in phrases[1:])]
    assert row["points"] == [None, *(pytest.approx(place, abs=1e-3) for place in places)]
    assert (row["split"], row["subset"]) == ("train", "bird")
    assert (row["width"], row["height"]) == (320, 240)


def test_every_part_is_a_region_or_in_the_quarantine(tmp_path, run):
    birds = [
        Bird(),
        Bird(is_test=True),
        Bird(points={"tail": (400.0, 30.0), "back": (160.0, 90.0)}),
    ]
    found = run(cub=str(write_cub(tmp_path / "data", birds)))
    metrics = found.metrics
    assert metrics["regions_in"] == 2 * (1 + len(CUB_PARTS))
    assert metrics["regions_out"] == sum(len(row["ref_exps"]) for row in found.rows) == NUM_SEEN + 3
    assert metrics["quarantined.part_not_visible"] == len(CUB_PARTS) - NUM_SEEN + 13
    assert metrics["quarantined.part_outside_image"] == 1
    assert metrics["test_images_left_out"] == 1
    assert metrics["test_parts_left_out"] == len(CUB_PARTS)
    (outside,) = [row for row in found.quarantine if row["reason"] == "part_outside_image"]
    assert outside["detail"].startswith("parts/part_locs.txt:44: ")  # 15 + 15 + the 14th part
    assert outside["phrase"] == "tail"


def test_species_are_named_only_if_the_settings_say_so(tmp_path, run):
    source = str(write_cub(tmp_path / "data", [Bird()]))
    assert "Albatross" not in run(cub=source).rows[0]["caption"]
    named = run(cub=source, name_classes=True).rows[0]
    assert named["caption"].startswith("Black footed Albatross with back, beak,")


def test_attributes_follow_the_caption_if_wanted_and_rows_with_more_columns_are_told(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird(), Bird()])
    labels = root / "attributes" / "image_attribute_labels.txt"
    edit(labels, lambda text: text + "2 2 1 4 0 2.1\n2 2 1 2 2.1\n9 1 1 4 2.1\n")
    found = run(cub=str(tmp_path / "data"), name_attributes=True)
    name = "cub/CUB_200_2011/attributes/image_attribute_labels.txt"
    assert {place: r for place, r in found.reasons.items() if place.startswith(name)} == {
        f"{name}:5": "malformed_row",
        f"{name}:7": "unknown_reference",
    }
    for row in found.rows:
        assert row["caption"].endswith("Annotators see: bill shape curved (up or down).")
        start, end = map(int, row["ref_exps"][1][:2])
        assert row["caption"][start:end] == "back"
    assert "Annotators" not in run(cub=str(root)).rows[0]["caption"]


def test_masks_are_the_parts_boxes_cut_by_the_segmentation(tmp_path, run):
    bird = Bird()
    (row,) = run(cub=str(write_cub(tmp_path / "data", [bird]).parent)).rows
    whole = ellipse(bird) > 0
    assert row["masks"][0] is None
    parts = zip(row["masks"][1:], row["ref_exps"][1:], strict=True)
    for counts, (_, _, _, y1, x2, _, _) in parts:
        mask = decode_mask(Rle(bird.height, bird.width, counts))
        assert mask.any()
        assert not (mask & ~whole).any()
        rows, columns = mask.nonzero()
        assert rows.min() >= y1 * bird.height - 0.5
        assert columns.max() + 1 <= x2 * bird.width + 0.5


def test_without_segmentations_there_are_no_masks(tmp_path, run):
    (row,) = run(cub=str(write_cub(tmp_path / "data", [Bird()], segmentations=False))).rows
    assert set(row["masks"]) == {None}
    assert set(row["mask_faults"]) == {None}


def test_a_segmentation_of_another_size_is_a_fault_of_the_masks(tmp_path, run):
    write_cub(tmp_path / "data", [Bird(), Bird()])
    first, second = sorted((tmp_path / "data" / "segmentations").rglob("*.png"))
    first.write_bytes(b"no image")
    Image.open(second).resize((32, 24)).save(second)
    faults = [row["mask_faults"][1] for row in run(cub=str(tmp_path / "data")).rows]
    assert "not_an_image" in faults[0]
    assert "is 32 x 24, the image 320 x 240" in faults[1]


@pytest.mark.parametrize(
    ("file", "old", "new", "reason", "line"),
    [
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "1 2 70.0 80.0 1 7", "malformed_row", 2),
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "1 2 70.0 nan 1", "malformed_row", 2),
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "1 2 70.0 80.0 yes", "malformed_row", 2),
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "1 1 70.0 80.0 1", "repeated_row", 2),
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "1 99 70.0 80.0 1", "unknown_reference", 2),
        ("parts/part_locs.txt", "1 2 70.0 80.0 1", "9 2 70.0 80.0 1", "unknown_reference", 2),
    ],
)
def test_a_bad_row_of_parts_costs_itself_and_is_told_by_file_and_line(
    tmp_path, run, file, old, new, reason, line
):
    root = write_cub(tmp_path / "data", [Bird()])
    edit(root / file, lambda text: text.replace(old, new))
    found = run(cub=str(root))
    assert found.reasons[f"cub/{file}:{line}"] == reason
    assert len(found.rows[0]["ref_exps"]) == NUM_SEEN
    assert found.metrics["regions_in"] == 1 + len(CUB_PARTS)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("train_test_split.txt", "1 1\n", "", "unknown_split"),
        ("train_test_split.txt", "1 1\n", "1 2\n", "unknown_split"),
        ("bounding_boxes.txt", "1 60.0", "1 x", "malformed_row"),
        ("bounding_boxes.txt", "200.0 160.0", "0.0 160.0", "malformed_row"),
        ("image_class_labels.txt", "1 1\n", "1 7\n", "unknown_reference"),
    ],
)
def test_an_image_whose_facts_are_missing_is_lost_with_all_its_parts(
    tmp_path, run, file, old, new, reason
):
    root = write_cub(tmp_path / "data", [Bird(), Bird()])
    edit(root / file, lambda text: text.replace(old, new, 1))
    found = run(cub=str(root))
    assert len(found.rows) == 1
    assert found.metrics[f"quarantined.{reason}"] == 1 + len(CUB_PARTS)
    assert found.metrics["regions_in"] == 2 * (1 + len(CUB_PARTS))


def test_an_image_that_is_not_there_or_no_image_is_lost_with_all_its_parts(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird(), Bird(), Bird(), Bird(), Bird()])
    first, second, *_ = sorted((root / "images").rglob("*.jpg"))
    first.unlink()
    put(second, b"<html>gone</html>" * 9)
    metrics = run(cub=str(root)).metrics
    assert metrics["quarantined.image_missing"] == 1 + len(CUB_PARTS)
    assert metrics["quarantined.not_an_image"] == 1 + len(CUB_PARTS)


def test_a_wrong_folder_is_told_what_it_misses_and_what_the_layout_is(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird()])
    (root / "bounding_boxes.txt").unlink()
    with pytest.raises(InputError, match=r"(?s)bounding_boxes\.txt is missing\. .*part_locs.txt"):
        run(cub=str(root))
    with pytest.raises(InputError, match="neither a folder nor an archive"):
        run(cub=str(tmp_path / "nowhere"))


def test_too_great_a_loss_is_not_published(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird(), Bird()])
    for image in (root / "images").rglob("*.jpg"):
        image.unlink()
    with pytest.raises(GateError, match="image_missing 32"):
        run(cub=str(root), max_lost_share=0.5)


def test_an_archive_gives_what_its_folder_gives(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird(), Bird(is_test=True)])
    archive = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "CUB_200_2011")
        tar.add(root.parent / "segmentations", "segmentations")
    packed = run(cub=str(archive))
    shutil.rmtree(tmp_path / "run")
    plain = run(cub=str(root.parent))
    for one, other in zip(packed.rows, plain.rows, strict=True):
        assert {**one, "url": ""} == {**other, "url": ""}


def test_nabirds_is_read_with_the_sizes_that_it_tells(tmp_path, run):
    root = write_nabirds(tmp_path / "data", [Bird(), Bird(is_test=True)])
    found = run(nabirds=str(root), cub=str(write_cub(tmp_path / "data", [Bird()])))
    assert [row["key"].partition("/")[0] for row in found.rows] == ["cub", "nabirds"]
    assert found.rows[1]["caption"].startswith("bird with bill, crown, nape, left eye,")
    edit(root / "sizes.txt", lambda text: text.replace("320 240", "320 0", 1))
    metrics = run(nabirds=str(root), cub=str(tmp_path / "data")).metrics
    assert metrics["quarantined.malformed_row"] == 1 + len(NABIRDS_PARTS)


def chain(
    folder: Path, detect: Mapping[str, object] = MappingProxyType({}), **evaluation_sets: object
) -> dict[str, list]:
    """From `grit` to `regions`; gives the rows on the way and those of the quarantines."""

    def step(name, inputs, outputs, **settings):
        places = [{key: folder / path for key, path in part.items()} for part in (inputs, outputs)]
        run_step(load_step(name), *places, settings)

    dropped = {"quarantine": "quarantine/select.parquet"}
    limits = {"max_box_share": 1.0, "min_box_share": 0.0, "min_box_side_px": 4}
    step("select", {"grit": "grit"}, {"records": "records"} | dropped, **limits)
    step(
        "ingest",
        {"records": "records/00000"},
        {"images": "images/00000", "quarantine": "quarantine/ingest.parquet"},
        file_root=str(folder / "grit"),
    )
    step(
        "deduplicate",
        {"records": "records", "images": "images"},
        {"candidates": "candidates", "quarantine": "quarantine/deduplicate.parquet"},
        min_box_side_px=4,
    )
    step(
        "decontaminate",
        {"candidates": "candidates", "images": "images"},
        {"uncontaminated": "uncontaminated", "quarantine": "quarantine/decontaminate.parquet"},
        **evaluation_sets,
    )
    step(
        "detect_parts",
        {"candidates": "uncontaminated", "images": "images"},
        {"detected": "detected", "quarantine": "quarantine/detect_parts.parquet"},
        **detect,
    )
    step(
        "segment",
        {"candidates": "detected/00000", "images": "images/00000"},
        {"regions": "regions/00000", "quarantine": "quarantine/segment.parquet"},
        fallback="box",
        rules={"max_image_share": 1.0, "min_area_px": 4},
    )
    names = ("records", "candidates", "detected", "regions", "quarantine")
    return {name: list(read_rows(folder / name)) for name in names}


def test_parts_go_through_the_steps_that_make_regions_with_the_origin_of_their_boxes(tmp_path, run):
    source = write_cub(tmp_path / "data", [Bird(), Bird(species="Laysan_Albatross")])
    run(cub=str(source.parent))
    made = chain(tmp_path / "run")
    for name in ("records", "candidates", "regions"):
        assert len(made[name]) == 2 * (1 + NUM_SEEN), name
        assert {row["box_source"] for row in made[name]} == {"image", "points"}
    assert not made["quarantine"]
    masks = {row["phrase"]: row["mask_source"] for row in made["regions"]}
    assert masks["bird"] == "box"
    assert masks["left eye"] == "record"


def test_a_test_image_that_another_set_trains_with_is_caught_and_no_region_is_lost_on_the_way(
    tmp_path, run
):
    shared = 70  # a photograph that tests in one set, and trains, larger, in the other
    larger = Bird(seed=shared, width=480, height=360, box=(90.0, 60.0, 300.0, 240.0))
    cub = str(write_cub(tmp_path / "data", [Bird(seed=71), Bird(seed=shared, is_test=True)]))
    nabirds = str(write_nabirds(tmp_path / "data", [larger, Bird(seed=72)]))
    found = run(cub=cub, nabirds=nabirds)
    made = chain(tmp_path / "run", cub=cub, nabirds=nabirds, max_leaked_share=1.0)
    leaked = {row["detail"].split(": ")[1] for row in made["quarantine"]}
    assert {row["reason"] for row in made["quarantine"]} == {"leaked_look_alike"}
    assert len(leaked) == 1
    assert {row["url"] for row in made["quarantine"]} == {found.rows[1]["url"]}
    assert found.metrics["regions_out"] == len(made["regions"]) + len(made["quarantine"])
    assert found.metrics["regions_in"] == found.metrics["regions_out"] + len(found.quarantine)


def test_cars_get_parts_by_a_detector_and_birds_keep_those_of_their_points(tmp_path, run):
    """A detector of random weights: its boxes mean nothing, their way is that of real ones."""
    save_owlv2(tmp_path / "tiny")
    cars, birds = [Machine(), Machine()], [Bird(seed=71)]
    run(cars=str(write_cars(tmp_path / "data", cars)), cub=str(write_cub(tmp_path / "data", birds)))
    detect = {
        "model": str(tmp_path / "tiny"),
        "parts": {"car": ["logo", "wheel hub"]},
        "box_threshold": 1e-6,
        "rules": {"min_inside_share": 0.01, "max_object_share": 1, "min_side_px": 4},
        "min_found_share": 0,
    }
    made = chain(tmp_path / "run", detect)
    found = [row for row in made["detected"] if row["box_source"].startswith("detector:")]
    lost = [row for row in made["quarantine"] if row["step"] == "detect_parts"]
    assert found
    assert {row["subset"] for row in found} == {"car"}
    assert len(made["detected"]) == len(made["candidates"]) + len(found)
    total = len(made["records"]) + len(found) + len(lost)
    assert total == len(made["regions"]) + len(made["quarantine"])
    sources = {row["region_id"]: row["box_source"] for row in made["regions"]}
    assert all(sources[row["region_id"]].startswith("detector:tiny@main>=") for row in found)
