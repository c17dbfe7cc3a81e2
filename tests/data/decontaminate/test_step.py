"""Test images that lie among the training images, in whatever form, are found and named."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from components.core.errors import GateError, InputError
from components.core.image_hash import perceptual_hash
from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import read_rows, write_rows
from components.data.decontaminate import evaluation
from components.data.decontaminate.evaluation import EvaluationImages, HashCache
from components.data.decontaminate.leaks import find_leaks
from components.data.decontaminate.step import decontaminate
from data_contracts import images as images_form
from data_contracts.candidates import SCHEMA
from tests.part_sources import (
    Bird,
    Machine,
    jpeg,
    photograph,
    put,
    write_aircraft,
    write_birdsnap,
    write_cars,
    write_cub,
    write_nabirds,
)
from tests.rows import record_row

TEST_SEED, TRAINING_SEED = 7, 8  # of the evaluation set's two photographs


def candidate(number: int, content: bytes) -> dict:
    """A region of an image, as `deduplicate` gives it."""
    from hashlib import sha256

    image = Image.open(io.BytesIO(content))
    row = record_row(number, url=f"file:///{number}.jpg", phrase="left eye", box_source="points")
    digest = sha256(content).hexdigest()
    return {name: value for name, value in row.items() if name in SCHEMA.names} | {
        "image_sha256": digest,
        "image_shard": "00000.tar",
        "image_width_px": image.width,
        "image_height_px": image.height,
        "image_phash": perceptual_hash(image),
        "box_xyxy": [1.0, 1.0, 30.0, 30.0],
    }


def manifest_row(row: dict) -> dict:
    """What `ingest` says of a candidate's image."""
    width, height = row["image_width_px"], row["image_height_px"]
    return {
        "url": row["url"],
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": row["image_sha256"],
        "shard": row["image_shard"],
        "num_bytes": 1,
        "width_px": width,
        "height_px": height,
        "phash": row["image_phash"],
        "stored_width": width,
        "stored_height": height,
        "orientation": 1,
    }


@pytest.fixture
def run(tmp_path):
    """Run the step on training images, some a group."""

    def run(*contents: bytes, group_size: int = 2, **settings):
        rows = [candidate(number, content) for number, content in enumerate(contents)]
        folder = tmp_path / "run"
        for start in range(0, len(rows), group_size):
            name, part = f"{start // group_size:05d}", rows[start : start + group_size]
            write_rows(folder / "candidates" / name / "part-00000.parquet", part, SCHEMA)
            manifest = folder / "images" / name / "manifest.parquet"
            write_rows(manifest, map(manifest_row, part), images_form.SCHEMA)
        outputs = {
            "uncontaminated": folder / "uncontaminated",
            "quarantine": folder / "quarantine.parquet",
        }
        receipt = run_step(
            load_step("decontaminate"),
            {name: folder / name for name in ("candidates", "images")},
            outputs,
            {"max_leaked_share": 1.0, **settings},
        )
        kept = [row["region_id"] for row in read_rows(outputs["uncontaminated"])]
        dropped = {row["region_id"]: row for row in read_rows(outputs["quarantine"])}
        return kept, dropped, receipt.metrics

    return run


def cub(folder: Path) -> str:
    birds = [Bird(is_test=True, seed=TEST_SEED), Bird(seed=TRAINING_SEED)]
    return str(write_cub(folder / "data", birds))


TEST_IMAGE = photograph(TEST_SEED, 320, 240)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg(TEST_IMAGE), "leaked_image"),
        (jpeg(TEST_IMAGE, quality=40), "leaked_look_alike"),
        (jpeg(TEST_IMAGE.resize((200, 150))), "leaked_look_alike"),
        (jpeg(TEST_IMAGE.resize((700, 500))), "leaked_look_alike"),
        (jpeg(ImageOps.mirror(TEST_IMAGE)), "leaked_mirrored"),
        (jpeg(ImageOps.mirror(TEST_IMAGE.resize((160, 120))), quality=50), "leaked_mirrored"),
    ],
    ids=["bytes", "re-encoded", "smaller", "larger", "mirrored", "smaller-mirrored-re-encoded"],
)
def test_a_planted_test_image_is_quarantined_with_both_paths(tmp_path, run, content, reason):
    other = jpeg(photograph(99, 320, 240))
    kept, dropped, metrics = run(other, content, cub=cub(tmp_path))
    assert kept == ["0-00"]
    assert dropped["1-00"]["reason"] == reason
    detail = dropped["1-00"]["detail"]
    assert detail.startswith("file:///1.jpg: ")
    assert "cub: " in detail
    assert detail.endswith(".jpg")
    assert f"{tmp_path}/data/CUB_200_2011/images/001.Black_footed_Albatross/" in detail
    assert (metrics["regions_in"], metrics["regions_out"]) == (2, 1)
    assert (metrics["images_leaked"], metrics["evaluation_images"]) == (1, 1)


def test_a_training_image_of_an_evaluation_set_is_no_leak(tmp_path, run):
    kept, dropped, _ = run(jpeg(photograph(TRAINING_SEED, 320, 240)), cub=cub(tmp_path))
    assert kept == ["0-00"]
    assert not dropped


def test_the_test_images_of_all_sets_are_compared_across_data_sets(tmp_path, run):
    data = tmp_path / "data"
    put(data / "retrieval" / "1.jpg", jpeg(photograph(50, 320, 240)))
    plane = photograph(201, 320, 240)  # the second one that write_aircraft draws
    plane.paste((0, 0, 0), (0, 220, 320, 240))
    contents = [
        jpeg(photograph(51, 320, 240)),  # nobody's
        jpeg(photograph(50, 320, 240)),
        jpeg(photograph(40, 320, 240)),
        jpeg(photograph(41, 320, 240)),
        jpeg(plane),
        jpeg(photograph(301, 320, 240)),
    ]
    kept, dropped, metrics = run(
        *contents,
        evaluation_images=str(data / "retrieval"),
        nabirds=str(write_nabirds(data, [Bird(is_test=True, seed=40)])),
        birdsnap=str(write_birdsnap(data, [Bird(is_test=True, seed=41), Bird()])),
        aircraft=str(write_aircraft(data, [Machine(), Machine(is_test=True)])),
        cars=str(write_cars(data, [Machine(), Machine(is_test=True)])),
    )
    assert kept == ["0-00"]
    sets = [row["detail"].split(": ")[1].split()[-1] for row in dropped.values()]
    assert sets == ["evaluation_images", "nabirds", "birdsnap", "aircraft", "cars"]
    assert metrics["evaluation_images"] == 5


def test_an_image_whose_split_nobody_knows_counts_as_a_test_image(tmp_path, run):
    source = cub(tmp_path)
    (Path(source) / "train_test_split.txt").write_text("")
    kept, dropped, _ = run(jpeg(photograph(TRAINING_SEED, 320, 240)), cub=source)
    assert not kept
    assert dropped["0-00"]["reason"] == "leaked_image"


def test_missing_and_unreadable_test_images_stop_the_step_unless_they_are_few(tmp_path, run):
    source = cub(tmp_path)
    image = next((Path(source) / "images").rglob("*_0001_*.jpg"))
    image.write_bytes(b"<html>gone</html>")
    content = jpeg(photograph(3, 320, 240))
    with pytest.raises(GateError, match=r"1 of 1 test images \(unreadable 1, missing 0\)"):
        run(content, cub=source)
    kept, _, metrics = run(content, cub=source, max_missing_share=1.0)
    assert (kept, metrics["evaluation_images_unreadable"]) == (["0-00"], 1)
    image.unlink()
    with pytest.raises(GateError, match="missing 1"):
        run(content, cub=source)


def test_training_images_that_are_named_as_evaluation_set_stop_the_step(tmp_path, run):
    content = jpeg(photograph(3, 320, 240))
    put(tmp_path / "data" / "1.jpg", content)
    with pytest.raises(GateError, match=r"1 of 1 regions leaked \(leaked_image 1\)"):
        run(content, evaluation_images=str(tmp_path / "data"), max_leaked_share=0.5)


def test_without_an_evaluation_set_nothing_is_compared_and_the_metrics_say_so(run, caplog):
    kept, _, metrics = run(jpeg(photograph(3, 320, 240)))
    assert (kept, metrics["evaluation_images"]) == (["0-00"], 0)
    assert "names no evaluation set" in caplog.text


def test_an_output_inside_an_evaluation_set_is_refused(tmp_path, run):
    with pytest.raises(
        InputError, match=r"decontaminate\.evaluation_images: the output is to lie in"
    ):
        run(jpeg(photograph(3, 320, 240)), evaluation_images=str(tmp_path))


def test_hashes_are_kept_for_the_next_run(tmp_path, run, monkeypatch):
    content, cache = jpeg(photograph(3, 320, 240)), tmp_path / "cache"
    source = cub(tmp_path)
    first = run(content, cub=source, cache_folder=str(cache))
    with (cache / evaluation.CACHE_NAME).open("a") as file:
        file.write('\n["torn", "li')  # by a run that was killed

    def decode_again(data: bytes) -> None:
        raise AssertionError("the image was decoded again")

    monkeypatch.setattr(evaluation, "open_image", decode_again)
    again = run(content, cub=source, cache_folder=str(cache), max_phash_distance=5)
    assert again[:2] == first[:2]


def test_a_killed_run_finds_its_hashes_again(tmp_path, run, monkeypatch):
    source = cub(tmp_path)
    decode = evaluation.open_image

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("components.data.decontaminate.step.find_leaks", die)
    content = jpeg(photograph(3, 320, 240))
    with pytest.raises(KeyboardInterrupt):
        run(content, cub=source)
    monkeypatch.undo()
    decoded = []
    monkeypatch.setattr(evaluation, "open_image", lambda data: decoded.append(1) or decode(data))
    run(content, cub=source)
    assert not decoded


@settings(deadline=None)  # of a busy machine
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_damaged_cache_holds_what_can_be_read_of_it(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("cache")
    good = json.dumps(["key", "a" * 64, "0" * 16, "1" * 16]).encode()
    (folder / evaluation.CACHE_NAME).write_bytes(b"\n".join([good, *lines]))
    assert HashCache(folder).get("key") == ("a" * 64, "0" * 16, "1" * 16)


@settings(deadline=None)  # of a busy machine
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30, unique=True),
    st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=9)), max_size=30),
    st.integers(0, 10),
)
def test_exactly_the_images_within_the_distance_are_leaks(training, changes, max_distance):
    others = []
    for index, bits in changes:
        value = training[index % len(training)]
        for bit in bits:
            value ^= 1 << bit
        others.append(value)
    images = EvaluationImages(
        places=[f"set: {number}" for number in range(len(others))],
        by_sha256={},
        hashes=np.array(others, dtype=np.uint64),
        positions=list(range(len(others))),
        is_mirrored=[False] * len(others),
        counts={},
    )
    names = [str(value) for value in training]
    found = find_leaks(names, np.array(training, dtype=np.uint64), images, max_distance)
    distances = {
        str(value): min(((value ^ other).bit_count() for other in others), default=99)
        for value in training
    }
    assert set(found) == {name for name, apart in distances.items() if apart <= max_distance}
    for name, leak in found.items():
        assert leak.detail.startswith(f"{distances[name]} of 64 hash bits from set: ")


def test_the_step_is_found_by_its_name():
    assert load_step("decontaminate") is decontaminate
