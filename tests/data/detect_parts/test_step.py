"""The step on real pictures: by a detector made by hand, and by tiny models."""

import io

import pytest
from PIL import Image

from components.core.errors import GateError
from components.core.run import run_step
from components.core.shards import write_shard
from components.core.tables import WORK_FOLDER, part_name, read_rows, write_rows
from components.data.detect_parts import models
from components.data.detect_parts.detector import Detection
from components.data.detect_parts.settings import DetectPartsSettings
from components.data.detect_parts.step import detect_parts
from data_contracts.candidates import SCHEMA
from data_contracts.images import SCHEMA as MANIFEST_SCHEMA
from tests.data.detect_parts.tiny_detectors import SAVE

PARTS = {"car": ["logo", "wheel hub", "grille"], "aircraft": ["nose", "engine"]}
WIDTH_PX, HEIGHT_PX = 120, 90


class World:
    """Groups of candidates with their images, as `deduplicate` and `ingest` leave them."""

    def __init__(self, root):
        self.root, self.groups = root, {}

    def add(self, group, number, subset, *sources, index=0, colour=None):
        """An image with a region a box source, numbered from `index` on."""
        sha256 = f"{number:064x}"
        boxes = {"object": [20.0, 10.0, 110.0, 80.0]}
        rows = [
            {
                "region_id": f"{number}-{index + place:02d}",
                "record_id": str(number),
                "url": f"file:///{number}.jpg",
                "image_caption": f"a {subset}",
                "phrase": subset or "thing",
                "score": 1.0,
                "split": "train",
                "subset": subset,
                "image_sha256": sha256,
                "image_shard": "00000.tar",
                "image_width_px": WIDTH_PX,
                "image_height_px": HEIGHT_PX,
                "image_phash": f"{number:016x}",
                "box_xyxy": boxes.get(source, [0.0, 0.0, 120.0, 90.0]),
                "mask_counts": None,
                "mask_size": None,
                "mask_fault": None,
                "box_source": source,
                "point_xy": None,
            }
            for place, source in enumerate(sources)
        ]
        self.groups.setdefault(group, []).append((rows, colour or (number, 0, 0)))
        return rows

    def write(self):
        paths = {name: self.root / name for name in ("candidates", "images")}
        for group, members in self.groups.items():
            rows = [row for some, _ in members for row in some]
            write_rows(paths["candidates"] / group / part_name(0), rows, SCHEMA)
            samples = [
                {"__key__": some[0]["image_sha256"], "jpg": jpeg(colour)}
                for some, colour in members
            ]
            write_shard(paths["images"] / group / "00000.tar", samples)
            manifest = [manifest_row(some[0]) for some, _ in members]
            write_rows(paths["images"] / group / "manifest.parquet", manifest, MANIFEST_SCHEMA)
        return paths

    def run(self, detector=None, monkeypatch=None, **settings):
        """Rows out, quarantine and metrics of the step with all that is around it."""
        if detector:
            monkeypatch.setattr(models, "build_detector", lambda _: detector)
        outputs = {
            "detected": self.root / "out" / "detected",
            "quarantine": self.root / "out" / "quarantine.parquet",
        }
        wanted = {"parts": PARTS, "min_found_share": 0, **settings}
        receipt = run_step(detect_parts, self.write(), outputs, wanted)
        rows = {
            group: list(read_rows(outputs["detected"] / group)) for group in sorted(self.groups)
        }
        return rows, list(read_rows(outputs["quarantine"])), receipt.metrics


def jpeg(colour):
    if isinstance(colour, bytes):
        return colour
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX), colour).save(buffer, "PNG")
    return buffer.getvalue()


def manifest_row(row):
    return {
        "url": row["url"],
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": row["image_sha256"],
        "shard": row["image_shard"],
        "num_bytes": 1000,
        "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX,
        "phash": row["image_phash"],
        "stored_width": WIDTH_PX,
        "stored_height": HEIGHT_PX,
        "orientation": 1,
    }


class HandMade:
    """Answers by the red of an image, which is its number."""

    source = "detector:hand-made@1>=0.3"

    def __init__(self, answers):
        self.answers, self.calls = answers, []

    def detect(self, images, queries):
        numbers = [image.getpixel((0, 0))[0] for image in images]
        self.calls.append((numbers, list(queries)))
        return [list(self.answers.get(number, [])) for number in numbers]


HUB, LOGO = (30.0, 50.0, 50.0, 70.0), (60.0, 30.0, 70.0, 40.0)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_parts_found_become_regions_after_those_of_their_image(world, monkeypatch):
    rows = world.add("00000", 7, "car", "image", "object")
    answer = [Detection(1, 0.5, HUB), Detection(1, 0.9, (25.0, 50.0, 45.0, 70.0))]
    found, dropped, metrics = world.run(HandMade({7: answer}), monkeypatch)
    assert found["00000"][:2] == rows
    (part,) = found["00000"][2:]
    assert part == {
        **rows[0],
        "region_id": "7-03",  # 02 is the logo's
        "phrase": "wheel hub",
        "score": 0.9,
        "box_xyxy": [25.0, 50.0, 45.0, 70.0],
        "box_source": "detector:hand-made@1>=0.3",
    }
    assert dropped == []
    counts = ("regions_in", "regions_found", "regions_out", "parts_not_found", "boxes_passed_over")
    assert [metrics[name] for name in counts] == [2, 1, 3, 2, 1]


def test_boxes_that_break_the_rules_are_quarantined_with_their_values(world, monkeypatch):
    world.add("00000", 7, "car", "image", "object")
    answer = [
        Detection(0, 0.9, (20.0, 10.0, 110.0, 80.0)),
        Detection(1, 0.8, (0.0, 0.0, 24.0, 30.0)),
        Detection(2, 0.7, (60.0, 30.0, 65.0, 40.0)),
    ]
    _, dropped, metrics = world.run(HandMade({7: answer}), monkeypatch)
    assert [(row["phrase"], row["reason"]) for row in dropped] == [
        ("logo", "whole_object"),
        ("wheel hub", "off_object"),
        ("grille", "tiny_box"),
    ]
    assert len({row["region_id"] for row in dropped}) == 3
    assert "100.0% of the object's box; at most 50.0%" in dropped[0]["detail"]
    assert metrics["regions_in"] + metrics["regions_found"] == metrics["regions_out"] + 3
    assert (metrics["images_searched"], metrics["images_with_parts"]) == (1, 0)


def test_without_a_box_of_the_object_the_whole_image_counts(world, monkeypatch):
    world.add("00000", 7, "car", "image")
    found, dropped, _ = world.run(HandMade({7: [Detection(0, 0.9, (0, 0, 24, 30))]}), monkeypatch)
    assert [row["phrase"] for row in found["00000"]] == ["car", "logo"]
    assert not dropped


def test_rows_of_images_that_are_not_searched_go_on_unchanged_and_in_order(world, monkeypatch):
    kept = [
        world.add("00000", 1, "bird", "image", "points"),
        world.add("00000", 2, "car", "image", "object"),
        world.add("00000", 3, "car", "image", "published"),
        world.add("00000", 4, "bird", "image"),  # no names of a bird's parts are set
    ]
    other = [
        world.add("00001", 5, "car", "image", "detector:other@1>=0.2", index=3),
        world.add("00001", 6, "", None),
        world.add("00001", 8, "aircraft", "image"),
    ]
    detector = HandMade({2: [Detection(0, 0.9, LOGO)], 8: [Detection(1, 0.9, HUB)]})
    found, _, metrics = world.run(detector, monkeypatch)
    assert detector.calls == [([2], PARTS["car"]), ([8], PARTS["aircraft"])]
    new = ("2-02", "8-02")
    for group, images in (("00000", kept), ("00001", other)):
        old = [row for row in found[group] if row["region_id"] not in new]
        assert old == [row for rows in images for row in rows]
    order = ["1-00", "1-01", "2-00", "2-01", "2-02", "3-00", "3-01", "4-00"]
    assert [row["region_id"] for row in found["00000"]] == order
    assert metrics["regions_found"] == 2


def test_no_model_is_loaded_where_nothing_is_to_be_found(world):
    rows = world.add("00000", 1, "bird", "image", "points")
    found, _, metrics = world.run(model="there/is-no-such-model")
    assert (found["00000"], metrics["images_searched"]) == (rows, 0)


def test_images_are_seen_in_batches_of_one_super_class(world, monkeypatch):
    for number, subset in enumerate(("car", "aircraft", "car", "car", "aircraft")):
        world.add("00000", number, subset, "image")
    detector = HandMade({3: [Detection(2, 0.4, HUB)]})
    found, _, _ = world.run(detector, monkeypatch, images_per_batch=2)
    batches = [numbers for numbers, _ in detector.calls]
    assert batches == [[0, 2], [3], [1, 4]]
    assert [row["phrase"] for row in found["00000"] if row["record_id"] == "3"] == ["car", "grille"]


@pytest.mark.parametrize(
    ("colour", "reason"),
    [(b"no image", "not_an_image"), ("another size", "image_size_mismatch")],
)
def test_an_image_that_cannot_be_searched_loses_its_own_rows_alone(
    world, monkeypatch, colour, reason
):
    if colour == "another size":
        buffer = io.BytesIO()
        Image.new("RGB", (10, 10)).save(buffer, "PNG")
        colour = buffer.getvalue()
    world.add("00000", 1, "car", "image", "object", colour=colour)
    world.add("00000", 2, "car", "image")
    detector = HandMade({2: [Detection(0, 0.9, HUB)]})
    found, dropped, metrics = world.run(detector, monkeypatch)
    assert [row["region_id"] for row in found["00000"]] == ["2-00", "2-01"]
    assert [(row["region_id"], row["reason"]) for row in dropped] == [
        ("1-00", reason),
        ("1-01", reason),
    ]
    assert metrics["images_searched"] == 2
    assert metrics[f"quarantined.{reason}"] == 2


def test_a_detector_that_finds_next_to_nothing_is_refused(world, monkeypatch):
    for number in range(4):
        world.add("00000", number, "car", "image")
    detector = HandMade({0: [Detection(0, 0.9, HUB)]})
    with pytest.raises(GateError, match="found parts in 1 of 4 images"):
        world.run(detector, monkeypatch, min_found_share=0.5)


class Killed(BaseException):
    """What no step catches."""


def test_a_killed_run_does_only_what_is_missing(world, monkeypatch):
    for number in range(4):
        world.add("00000", number, "car", "image", "object")

    class Mortal(HandMade):
        def detect(self, images, queries):
            if len(self.calls) == 2:
                raise Killed
            return super().detect(images, queries)

    answers = {number: [Detection(0, 0.9, LOGO)] for number in range(4)}
    settings = {"images_per_batch": 1, "images_per_file": 1}
    with pytest.raises(Killed):
        world.run(Mortal(answers), monkeypatch, **settings)
    second = HandMade(answers)
    found, _, metrics = world.run(second, monkeypatch, **settings)
    assert [numbers for numbers, _ in second.calls] == [[2], [3]]
    assert (metrics["regions_in"], metrics["regions_found"]) == (8, 4)
    order = [f"{number}-{index:02d}" for number in range(4) for index in range(3)]
    assert [row["region_id"] for row in found["00000"]] == order
    assert not (world.root / "out" / "detected" / WORK_FOLDER).exists()


@pytest.mark.parametrize("name", SAVE)
def test_a_tiny_model_finds_parts_through_the_step(world, tmp_path, name):
    SAVE[name](tmp_path / name)
    for number in range(3):
        world.add("00000", number, "car", "image", "object")
    world.add("00001", 4, "bird", "image", "points")
    rules = {"min_inside_share": 0.01, "max_object_share": 1, "min_side_px": 1}
    settings = {"box_threshold": 1e-30, "text_threshold": 0, "rules": rules}
    found, dropped, metrics = world.run(model=str(tmp_path / name), **settings)
    new = [row for row in found["00000"] if row["box_source"] not in ("image", "object")]
    assert new
    assert metrics["regions_found"] == len(new) + len(dropped)
    assert {row["box_source"].partition("@")[0] for row in new} == {f"detector:{name}"}
    assert {row["phrase"] for row in new} <= set(PARTS["car"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": {"car": ["logo", "Logo"]}}, "car has a part twice"),
        ({"parts": {"car": ["logo. wheel"]}}, "letters, digits and spaces"),
        ({"parts": {"car": [""]}}, "letters, digits and spaces"),
        ({"query": "a photo"}, "it holds {part}"),
        ({"query": "a {part}."}, "neither full stop"),
    ],
)
def test_settings_that_a_detector_cannot_read_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DetectPartsSettings.model_validate(settings)


def test_the_query_names_part_and_object():
    settings = DetectPartsSettings(query="a photo of a {part} of a {object}", parts=PARTS)
    assert settings.queries("aircraft")[1] == "a photo of a engine of a aircraft"
