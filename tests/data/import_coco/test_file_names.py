"""File names as tools write them, links in the folder, and what ingest makes of the addresses."""

import os

import numpy as np
import pytest
from PIL import Image

from components.core.run import run_step
from components.core.sources import source_digest
from components.core.tables import read_rows
from components.data.formats.values import BadValueError
from components.data.import_coco.addresses import address_maker
from components.data.ingest.settings import IngestSettings
from components.data.ingest.step import ingest_images
from components.data.select.step import select
from tests.data.import_coco.coco_files import HEIGHT, WIDTH, annotation, content


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((WIDTH, HEIGHT)).save(path, "JPEG")


@pytest.fixture
def reasons(run, tmp_path, photos):
    """Import images by their file names, select and ingest them; the reason for each."""

    def reasons(*names):
        value = content(*(annotation(i, image_id=i) for i in range(len(names))))
        value["images"] = [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names)
        ]
        _, rows = run(value)
        outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "select.parquet"}
        run_step(select, {"grit": tmp_path / "grit"}, outputs, {})
        images = tmp_path / "images"
        settings = IngestSettings(file_root=str(photos), min_success_rate=0)
        ingest_images(outputs["records"] / "00000", images, tmp_path / "q.parquet", settings)
        found = {row["url"]: row["reason"] for row in read_rows(images)}
        return [found[row["url"]] for row in rows]

    return reasons


def test_names_of_windows_and_with_odd_signs_are_found(reasons, photos):
    names = ["a\\b.jpg", "./c.jpg", "d #1?%41.jpg", "ü/é.jpg", "e\\f.jpg", "g//h.jpg", "i:j.jpg"]
    on_disk = ["a/b.jpg", "c.jpg", "d #1?%41.jpg", "ü/é.jpg", "e\\f.jpg", "g/h.jpg", "i:j.jpg"]
    for seed, name in enumerate(on_disk):
        save(photos / name, seed)
    assert reasons(*names) == [""] * len(names)


def test_a_name_is_found_in_the_spelling_that_the_disk_has(reasons, photos):
    for seed, name in enumerate(["caf\u0065\u0301.jpg", "th\u00e9.jpg", "a b.jpg", "c%20d.jpg"]):
        save(photos / name, seed)
    assert reasons("caf\u00e9.jpg", "th\u0065\u0301.jpg", "a%20b.jpg", "c%20d.jpg") == [""] * 4


@pytest.mark.parametrize(
    "name", ["%2e%2e/a.jpg", "%2Fetc/passwd", "x/%2e%2e/%2e%2e/a.jpg", "a%00.jpg"]
)
def test_a_decoded_name_leads_nowhere_else(tmp_path, photos, name):
    save(tmp_path / "a.jpg")
    assert "#sha256" not in address_maker(str(photos))(name)


def test_a_name_whose_bytes_are_no_utf8_is_found(reasons, photos):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    save(photos / "x.jpg")
    os.rename(photos / "x.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")
    assert reasons(name) == [""]


def test_linked_pictures_and_folders_are_followed_wherever_they_lead(reasons, photos, tmp_path):
    for seed in range(4):
        save(tmp_path / "store" / f"{seed}.jpg", seed)
    save(photos / "here.jpg", 5)
    (photos / "inner.jpg").symlink_to("here.jpg")
    (photos / "outer.jpg").symlink_to(tmp_path / "store" / "0.jpg")
    (photos / "folder").symlink_to(tmp_path / "store")
    (photos / "twice.jpg").symlink_to(photos / "folder" / "2.jpg")
    assert reasons("inner.jpg", "outer.jpg", "folder/1.jpg", "twice.jpg") == [""] * 4


def test_a_folder_that_is_a_link_itself_is_the_users_folder(run, photos, tmp_path):
    save(photos / "a.jpg")
    (tmp_path / "link").symlink_to(photos)
    assert address_maker(str(tmp_path / "link"))("a.jpg") == address_maker(str(photos))("a.jpg")


def test_a_loop_and_a_missing_picture_are_told(reasons, photos):
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    assert reasons("loop.jpg", "gone.jpg", "missing.jpg") == ["file_missing"] * 3


def test_a_picture_that_may_not_be_read_costs_no_other(tmp_path, photos, monkeypatch):
    for number in range(3):
        save(photos / f"{number}.jpg", number)
    before = source_digest(str(photos))
    allowed = os.access
    closed = {photos / "1.jpg"}
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and allowed(path, mode))
    assert source_digest(str(photos)) != before


@pytest.mark.parametrize("name", ["\ud83d.jpg", "caf\udce9.jpg"])
def test_a_key_of_a_store_is_a_valid_text(name):
    with pytest.raises(BadValueError, match="no valid text"):
        address_maker("s3://mine/photos")(name)


def test_backslashes_become_separators_in_a_store():
    assert address_maker("s3://mine")("a\\b.jpg") == "s3://mine/a/b.jpg"
