"""Birdsnap, FGVC-Aircraft, Stanford Cars and COCO files of parts, each in its published layout."""

import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import boto3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from components.core.errors import GateError, InputError
from components.data.formats.cars import read_mat
from components.data.formats.files import FolderFiles
from components.data.formats.sources import FORMATS
from components.data.formats.values import LeftOut
from tests.part_sources import (
    BIRDSNAP_PARTS,
    CUB_PARTS,
    Bird,
    Machine,
    write_aircraft,
    write_birdsnap,
    write_cars,
    write_coco,
    write_cub,
    write_nabirds,
)


def phrases(row) -> list[str]:
    return [row["caption"][int(start) : int(end)] for start, end, *_ in row["ref_exps"]]


def pixels(row, index: int) -> list[float]:
    x1, y1, x2, y2 = row["ref_exps"][index][2:6]
    return [x1 * row["width"], y1 * row["height"], x2 * row["width"], y2 * row["height"]]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_birdsnap_is_read_as_far_as_its_photographs_were_fetched(tmp_path, run):
    birds = [Bird(), Bird(), Bird(is_test=True)]
    found = run(birdsnap=str(write_birdsnap(tmp_path / "data", birds, dead=[1])))
    (row,) = found.rows
    assert phrases(row)[:3] == ["bird", "back", "beak"]
    assert "left eye" in phrases(row)
    assert found.metrics["quarantined.image_missing"] == 1 + len(BIRDSNAP_PARTS)
    assert found.metrics["test_images_left_out"] == 1
    assert found.metrics["regions_in"] == 2 * (1 + len(BIRDSNAP_PARTS))
    assert (
        run(birdsnap=str(tmp_path / "data"), name_classes=True)
        .rows[0]["caption"]
        .startswith("Black footed Albatross with")
    )


def test_a_photograph_that_is_another_by_its_md5_is_lost(tmp_path, run):
    root = write_birdsnap(tmp_path / "data", [Bird(), Bird()])
    first, second = sorted((root / "download" / "images").rglob("*.jpg"))
    shutil.copy(second, first)  # as a host does that shows another picture instead
    assert run(birdsnap=str(root)).metrics["quarantined.image_changed"] == 1 + len(BIRDSNAP_PARTS)


@pytest.mark.parametrize(
    ("old", "new", "reason", "place"),
    [
        ("\t70\t80\t", "\t70\t\t", "malformed_row", "images.txt:2:beak"),
        ("\t70\t80\t", "\t70\tx\t", "malformed_row", "images.txt:2:beak"),
        ("\t70\t80\t", "\t70\t80\t9\t", "malformed_row", "images.txt:2"),
    ],
)
def test_a_bad_value_of_birdsnap_is_told_by_line_and_part(tmp_path, run, old, new, reason, place):
    root = write_birdsnap(tmp_path / "data", [Bird(), Bird()])
    edit(root / "images.txt", old, new)
    assert run(birdsnap=str(root)).reasons[f"birdsnap/{place}"] == reason


def test_a_test_path_that_no_image_of_birdsnap_has_is_told(tmp_path, run):
    root = write_birdsnap(tmp_path / "data", [Bird()])
    edit(root / "test_images.txt", "path\n", "path\nnone/1.jpg\n")
    found = run(birdsnap=str(root))
    assert found.reasons["birdsnap/test_images.txt:2"] == "unknown_reference"


def test_an_aircraft_brings_its_box_and_nothing_of_the_banner(tmp_path, run):
    planes = [Machine(), Machine(box=(1, 1, 320, 240)), Machine(is_test=True)]
    found = run(aircraft=str(write_aircraft(tmp_path / "data", planes)))
    first, second = found.rows
    assert phrases(first) == ["aircraft", "whole aircraft"]
    assert first["box_sources"] == ["image", "object"]
    assert pixels(first, 0) == pytest.approx([0, 0, 320, 220])
    assert pixels(first, 1) == pytest.approx([40, 60, 280, 200])
    assert pixels(second, 1) == pytest.approx([0, 0, 320, 220])
    assert found.metrics["test_images_left_out"] == 1


@pytest.mark.parametrize(
    ("level", "name"),
    [("variant", "707-320"), ("family", "Boeing 707"), ("manufacturer", "Boeing")],
)
def test_an_aircraft_is_named_at_the_level_that_the_settings_say(tmp_path, run, level, name):
    root = str(write_aircraft(tmp_path / "data", [Machine()]))
    (row,) = run(aircraft=root, name_classes=True, aircraft_level=level).rows
    assert phrases(row)[0] == name


def test_an_image_that_is_training_and_test_image_of_aircraft_does_not_enter(tmp_path, run):
    root = write_aircraft(tmp_path / "data", [Machine(), Machine(is_test=True), Machine()])
    edit(root / "data" / "images_variant_trainval.txt", "0034309 ", "0034310 707-320\n0034309 ")
    found = run(aircraft=str(root))
    assert [row["key"] for row in found.rows] == ["aircraft/0034309", "aircraft/0034311"]
    assert found.metrics["quarantined.unknown_split"] == 2  # it is listed twice


@pytest.mark.parametrize("is_old", [False, True])
def test_both_devkits_of_cars_give_the_same(tmp_path, run, is_old):
    cars = [
        Machine(labels=("AM General Hummer SUV 2000",)),
        Machine(is_test=True, labels=("Acura RL Sedan 2012",)),
        Machine(labels=("Acura RL Sedan 2012",)),
    ]
    root = write_cars(tmp_path / "data", cars, is_old=is_old)
    found = run(cars=str(root), name_classes=True)
    assert [phrases(row) for row in found.rows] == [
        ["AM General Hummer SUV 2000", "whole car"],
        ["Acura RL Sedan 2012", "whole car"],
    ]
    assert pixels(found.rows[0], 1) == pytest.approx([40, 60, 280, 200])
    assert found.metrics["test_images_left_out"] == 1
    assert not found.quarantine


def test_test_images_of_cars_without_annotations_are_test_images(tmp_path, run):
    root = write_cars(tmp_path / "data", [Machine(), Machine(is_test=True)])
    (root / "cars_test_annos_withlabels.mat").unlink()
    assert run(cars=str(root)).metrics["test_images_left_out"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no MATLAB file of version 5"),
        (b"import os", "is no MATLAB file of version 5"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"x" * 300, "version 7.3"),
        (
            b"MATLAB 5.0 MAT-file".ljust(124)
            + b"\x00\x01IM\x0f\x00\x00\x00"
            + len(zlib.compress(bytes(1 << 27))).to_bytes(4, "little")
            + zlib.compress(bytes(1 << 27)),
            "variables have more than",
        ),
    ],
)
def test_a_mat_file_that_is_none_or_a_bomb_is_refused(tmp_path, run, content, message):
    root = write_cars(tmp_path / "data", [Machine()])
    (root / "devkit" / "cars_train_annos.mat").write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(cars=str(root))


def test_a_coco_file_of_parts_keeps_its_boxes_and_masks(tmp_path, run):
    (row,) = run(coco=str(write_coco(tmp_path / "data"))).rows
    assert phrases(row) == ["bicycle", "wheel", "saddle"]
    assert row["box_sources"] == ["image", "published", "published"]
    assert pixels(row, 1) == pytest.approx([20, 120, 120, 220])
    assert pixels(row, 2) == pytest.approx([150, 40, 200, 60])
    assert row["masks"][1] is None
    assert row["masks"][2]


def test_bad_entries_and_groups_of_a_coco_file_are_quarantined(tmp_path, run):
    part = {"image_id": 1, "category_id": 1, "bbox": [20, 120, 100, 100]}
    annotations = [part, part | {"iscrowd": 1}, part | {"bbox": [900, 0, 5, 5]}, part | {"bbox": 7}]
    found = run(coco=str(write_coco(tmp_path / "data", annotations=annotations)))
    place = "coco/annotations.json: annotations"
    assert found.reasons == {
        f"{place}[1]": "group_of_parts",
        f"{place}[2]": "part_outside_image",
        f"{place}[3]": "bad_box",
    }
    assert found.metrics["regions_in"] == 5


def test_a_folder_with_two_json_files_is_no_coco_source(tmp_path, run):
    root = write_coco(tmp_path / "data")
    (root / "annotations.json").rename(root / "a.json")
    shutil.copy(root / "a.json", root / "b.json")
    with pytest.raises(InputError, match=r"it holds 2 \.json files"):
        run(coco=str(root))


def test_all_formats_can_be_imported_at_once_and_records_do_not_clash(tmp_path, run):
    data = tmp_path / "data"
    sources = {
        "cub": write_cub(data, [Bird()]),
        "nabirds": write_nabirds(data, [Bird()]),
        "birdsnap": write_birdsnap(data, [Bird()]),
        "aircraft": write_aircraft(data, [Machine()]),
        "cars": write_cars(data, [Machine()]),
        "coco": write_coco(data),
    }
    found = run(**{name: str(root) for name, root in sources.items()})
    assert [row["key"].partition("/")[0] for row in found.rows] == list(sources)
    assert len({row["id"] for row in found.rows}) == len(sources)
    assert len({row["url"] for row in found.rows}) == len(sources)
    assert {kind.name for kind in FORMATS} == set(sources)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_an_empty_folder_is_told_the_layout(tmp_path, run, kind):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"(?s)The layout is\n"):
        run(**{kind.name: str(tmp_path / "empty")})


def test_a_source_in_s3_keeps_its_images_there_and_an_archive_there_is_unpacked(
    tmp_path, run, s3_endpoint
):
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="part-sources")
    write_cub(tmp_path / "data", [Bird(), Bird(is_test=True)])
    with zipfile.ZipFile(tmp_path / "cub.zip", "w") as archive:
        for file in (tmp_path / "data").rglob("*"):
            if file.is_file():
                name = file.relative_to(tmp_path / "data").as_posix()
                client.upload_file(str(file), "part-sources", f"sets/{name}")
                archive.write(file, name)
    client.upload_file(str(tmp_path / "cub.zip"), "part-sources", "cub.zip")
    (there,) = run(cub="s3://part-sources/sets", endpoint_url=s3_endpoint).rows
    (packed,) = run(cub="s3://part-sources/cub.zip", endpoint_url=s3_endpoint).rows
    assert there["url"].startswith("s3://part-sources/sets/CUB_200_2011/images/001.Black_footed_")
    assert packed["url"].startswith("file:///_sources/cub/CUB_200_2011/images/001.Black_footed_")
    assert {**there, "url": ""} == {**packed, "url": ""}


WRITERS = {
    "cub": lambda folder: write_cub(folder, [Bird(), Bird(is_test=True)]).parent,
    "nabirds": lambda folder: write_nabirds(folder, [Bird()]),
    "birdsnap": lambda folder: write_birdsnap(folder, [Bird(), Bird(is_test=True)]),
    "aircraft": lambda folder: write_aircraft(folder, [Machine(), Machine(is_test=True)]),
    "cars": lambda folder: write_cars(folder, [Machine(), Machine(is_test=True)]),
}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_tables_cost_rows_or_are_refused_but_never_break_the_reader(
    tmp_path_factory, name, data
):
    folder = tmp_path_factory.mktemp(name)
    WRITERS[name](folder)
    tables = (path for path in folder.rglob("*") if path.suffix in (".txt", ".mat"))
    table = data.draw(st.sampled_from(sorted(path for path in tables if path.stat().st_size)))
    content = bytearray(table.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    table.write_bytes(content)
    kind = next(kind for kind in FORMATS if kind.name == name)
    left_out = LeftOut()
    try:
        images = kind.read(FolderFiles(folder, str(folder)), left_out)
    except InputError:
        return
    places = [part.place for image in images for part in image.parts]
    assert len(places) == len(set(places))
    json.dumps(left_out.entries)


def test_a_matlab_file_that_claims_a_huge_array_is_refused_before_it_is_allocated(tmp_path):
    WRITERS["cars"](tmp_path)
    table = next(tmp_path.rglob("cars_meta.mat"))
    savemat(table, {"class_names": np.array(["a car"], dtype=object)}, do_compression=False)
    content = bytearray(table.read_bytes())
    place = content.index(struct.pack("<ii", 1, 1))
    content[place : place + 8] = struct.pack("<ii", 1 << 16, 1 << 16)
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"claims to be \(65536, 65536\) large"):
        read_mat(FolderFiles(tmp_path, str(tmp_path)), table.relative_to(tmp_path).as_posix())


def test_a_setting_names_every_format():
    from components.data.import_parts.settings import ImportPartsSettings

    assert {kind.name for kind in FORMATS} <= set(ImportPartsSettings.model_fields)


def test_nothing_is_imported_without_a_source(run):
    with pytest.raises(InputError, match="names no source"):
        run()


def test_an_import_of_nothing_but_test_images_is_not_published(tmp_path, run):
    root = write_cub(tmp_path / "data", [Bird(is_test=True)])
    with pytest.raises(GateError, match="made 0 records"):
        run(cub=str(root))
    assert len(CUB_PARTS) == 15
