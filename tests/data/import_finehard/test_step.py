"""FineHARD becomes rows and images; what cannot be used is told with file and entry."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.shards import members_of, read_image_bytes
from components.core.step import load_step
from components.core.tables import groups_of, read_rows
from components.data.import_finehard.records import BOX_SOURCE
from pixclip.masks import Rle, box_mask, decode_mask
from tests.finehard_source import PREFIX, draw, write_finehard

NAMES = ("short_caption", "long_caption", "hard_negatives")


def test_every_image_and_every_box_becomes_a_row_with_its_own_texts(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 7)
    made = run(annotations, images)
    assert made.metrics["regions_in"] == made.metrics["regions_out"] == 7 * 4
    assert (made.metrics["entries"], made.metrics["images_out"], made.metrics["files"]) == (7, 7, 2)
    assert made.metrics["regions_with_negatives"] == 7 * 2
    entries = [e for path in sorted(annotations.iterdir()) for e in json.loads(path.read_text())]
    rows = made.rows
    for entry, (whole, *parts) in zip(entries, zip(*[iter(rows)] * 4, strict=True), strict=True):
        assert whole["url"] == f"file:///{entry['f_path'].removeprefix(PREFIX)}"
        assert whole["box_source"] == "image"
        assert [whole[name] for name in NAMES] == [entry["short_caption"], entry["caption"], []]
        assert whole["box_xyxy"] == [0, 0, 320, 240]
        for box, part in zip(entry["bbox_info"], parts, strict=True):
            negatives = list(box["short_expr_negs"].values())
            assert [part[name] for name in NAMES] == [
                box["short_expr"], box["long_expr"], negatives
            ]  # fmt: skip
            assert part["phrase"] == box["short_expr"]
            assert part["score"] == 0.71
            assert part["box_source"] == BOX_SOURCE
            pixels = [s * n for s, n in zip(box["bbox"], (320, 240, 320, 240), strict=False)]
            assert part["box_xyxy"] == pytest.approx(pixels)


def test_a_regions_mask_is_its_box(tmp_path, run):
    made = run(*write_finehard(tmp_path, 2))
    for row in made.rows:
        mask = decode_mask(Rle(*row["mask_size"], row["mask_counts"]))
        assert (mask == box_mask(row["box_xyxy"], 240, 320)).all()
        assert row["mask_area_px"] == mask.sum()


def test_images_are_kept_byte_by_byte_and_rows_say_in_which_tar(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 7)
    made = run(annotations, images)
    for group in groups_of(made.outputs["captions"]):
        for row in read_rows(made.outputs["captions"] / group):
            name = row["url"].removeprefix("file:///")
            kept = read_image_bytes(
                made.outputs["images"] / group, row["image_shard"], row["image_sha256"]
            )
            assert kept == (images / name).read_bytes()


def test_tars_stand_for_folders(tmp_path, run):
    loose = run(*write_finehard(tmp_path / "loose"), name="a")
    tarred = run(*write_finehard(tmp_path / "tarred", in_tars=True), name="b")
    assert tarred.rows == loose.rows
    tars = (tmp_path / "tarred/grit-12m/coyo_image_0").iterdir()
    assert {path.suffix for path in tars} == {".tar"}


def test_the_names_that_img2dataset_gives_are_found_in_its_tars(tmp_path, run):
    """An older `f_path`: data/down-grit-12m/coyo_image_0/00000/00000/000000001.jpg."""

    def rename(entry, number):
        entry["f_path"] = f"data/down-grit-12m/coyo_image_0/00003/00000/{number:09d}.jpg"

    annotations, images = write_finehard(tmp_path, 3, change=rename)
    shutil.rmtree(images)
    shard = images / "coyo_image_0/00003/00000.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as tar:
        for number in range(3):
            jpeg, _ = draw(number)
            member = tarfile.TarInfo(f"{number:09d}.jpg")
            member.size = len(jpeg)
            tar.addfile(member, io.BytesIO(jpeg))
    assert run(annotations, images).metrics["images_out"] == 3


def test_compressed_annotations_archives_and_the_whole_repository_are_read(tmp_path, run):
    annotations, images = write_finehard(tmp_path)
    plain = run(annotations, images, name="plain")
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in annotations.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (annotations.parent / "url2key_jsons").mkdir()
    (annotations.parent / "url2key_jsons/url2key_coyo_image_0.json").write_text('[{"url": "x"}]')
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", images)
    for name, place in (("gz", packed), ("root", annotations.parent)):
        made = run(place, images, name=name)
        assert (made.rows, made.metrics) == (plain.rows, plain.metrics)
    assert run(annotations, archive, name="archive").rows == plain.rows
    lines = tmp_path / "all.jsonl"
    entries = [e for path in sorted(annotations.iterdir()) for e in json.loads(path.read_text())]
    lines.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    assert run(lines, images, name="lines").rows == plain.rows


def spoil(entry, number):
    """What can be wrong with an entry, one thing each."""
    box = entry["bbox_info"][0]
    changes = {
        1: lambda: entry.update(f_path="/etc/passwd"),
        2: lambda: entry.update(f_path=f"{PREFIX}../secret.jpg"),
        3: lambda: entry.update(f_path=f"{PREFIX}coyo_image_0/00000/gone.jpg"),
        4: lambda: entry.pop("caption"),
        5: lambda: box.update(bbox=[0.5, 0.5, 0.5, 0.9]),
        6: lambda: box.update(bbox=[0.5, 0.5, 1.5, 0.9]),
        7: lambda: box.update(bbox=[0.5, "x", 0.6, 0.9]),
        8: lambda: box.update(bbox=[0.5, 0.5, 0.51, 0.9]),
        9: lambda: box.update(long_expr=" "),
        10: lambda: box["short_expr_negs"].pop("3"),
        11: lambda: box["short_expr_negs"].update({"3": box["short_expr"].upper()}),
        12: lambda: box.update(flag_short_neg="perhaps"),
        13: lambda: box.update(short_expr="word " * 61, long_expr="word " * 70),
        14: lambda: box.update(long_expr="ball"),
        15: lambda: entry.update(bbox_info="none"),
        16: lambda: entry.update(f_path=None),
        17: lambda: entry["bbox_info"].append("no box"),
    }
    changes.get(number, lambda: None)()


WANTED = {
    1: [("bad_file_name", part) for part in ("image", *(f"bbox_info[{n}]" for n in range(3)))],
    2: [("bad_file_name", part) for part in ("image", *(f"bbox_info[{n}]" for n in range(3)))],
    3: [("image_missing", part) for part in ("image", *(f"bbox_info[{n}]" for n in range(3)))],
    4: [("bad_text", "image")],
    5: [("empty_box", "bbox_info[0]")],
    6: [("box_outside_image", "bbox_info[0]")],
    7: [("bad_box", "bbox_info[0]")],
    8: [("tiny_box", "bbox_info[0]")],
    9: [("bad_text", "bbox_info[0]")],
    10: [("wrong_negatives", "bbox_info[0]")],
    11: [("wrong_negatives", "bbox_info[0]")],
    12: [("bad_flag", "bbox_info[0]")],
    13: [("too_long", "bbox_info[0]")],
    14: [("long_text_shorter", "bbox_info[0]")],
    15: [("bad_box", "bbox_info")],
    16: [("bad_file_name", part) for part in ("image", *(f"bbox_info[{n}]" for n in range(3)))],
    17: [("no_object", "bbox_info[3]")],
}


def test_what_is_wrong_goes_to_the_quarantine_with_file_and_entry_and_nothing_else_does(
    tmp_path, run
):
    made = run(*write_finehard(tmp_path, 19, per_file=19, change=spoil))
    file = "2024-12-06_18-32-50_results_0.json"
    assert made.reasons == [
        (reason, f"{file}#{number}, {part}")
        for number, faults in WANTED.items()
        for reason, part in faults
    ]
    # An entry whose boxes are no list has one row less two; one has a box more.
    assert made.metrics["regions_in"] == 19 * 4 - 2 + 1
    kept, lost = made.metrics["regions_out"], made.metrics["regions_quarantined"]
    assert (kept + lost, lost) == (made.metrics["regions_in"], len(made.quarantine))
    assert kept == len(made.rows)


def test_what_an_entry_cannot_use_can_be_put_back(tmp_path, run):
    made = run(*write_finehard(tmp_path, 19, per_file=19, change=spoil))
    row = json.loads(next(r["row"] for r in made.quarantine if r["reason"] == "tiny_box"))
    assert row["box"] == [0.5, 0.5, 0.51, 0.9]
    assert len(row["hard_negatives"]) == 10
    assert row["file"].endswith(".jpg")


def test_without_its_captions_an_image_still_has_its_boxes(tmp_path, run):
    made = run(*write_finehard(tmp_path, 5, change=lambda entry, _: entry.pop("short_caption")))
    assert {row["box_source"] for row in made.rows} == {BOX_SOURCE}
    assert made.metrics["images_out"] == 5
    for row in made.rows:
        assert row["short_caption"] in row["image_caption"].split(", ")


def as_jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>gone</html>", "not_an_image"),
        (draw(0)[0][:4000], "truncated_image"),
        (draw(1)[0] + bytes(40_000), "too_large"),
        (draw(0, (700, 500))[0], "too_many_pixels"),
        (draw(0, (320, 99))[0], "too_small"),
    ],
)
def test_an_image_that_cannot_be_used_costs_itself(tmp_path, run, content, reason):
    annotations, images = write_finehard(tmp_path, 3)
    (images / "coyo_image_0/00000/000000001.jpg").write_bytes(content)
    made = run(annotations, images, max_bytes=40_000, max_pixels=100_000)
    assert [row["reason"] for row in made.quarantine] == [reason] * 4
    assert made.metrics["images_out"] == 2


def test_a_turned_photograph_is_left_out_for_nobody_says_how_its_boxes_are_measured(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 3)
    path = images / "coyo_image_0/00000/000000001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(as_jpeg(Image.open(path), exif=exif))
    assert {row["reason"] for row in run(annotations, images).quarantine} == {
        "orientation_undecided"
    }


def test_the_same_image_under_another_name_comes_once_also_in_another_group(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 8)
    folder = images / "coyo_image_0"
    shutil.copy(folder / "00000/000000001.jpg", folder / "00001/000010007.jpg")
    made = run(annotations, images, images_per_group=2)
    assert made.reasons[0][0] == "duplicate_image"
    assert len(made.quarantine) == 4
    assert {row["url"] for row in made.quarantine} == {"file:///coyo_image_0/00001/000010007.jpg"}


def test_too_many_missing_images_publish_nothing_and_the_advice_names_the_settings(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 4)
    shutil.move(images, tmp_path / "moved" / "data-12m")
    with pytest.raises(GateError, match=r"(?s)images of 16 are missing.*path_prefixes"):
        run(annotations, tmp_path / "moved")
    assert not (tmp_path / "run/captions").exists()


def test_dead_links_are_expected_but_other_losses_are_not(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 19, per_file=19, change=spoil)
    with pytest.raises(GateError, match=r"lost 25 of 71 regions whose images are there"):
        run(annotations, images, max_lost_share=0.1)
    for path in sorted((images / "coyo_image_0/00000").iterdir()):
        path.unlink()
    with pytest.raises(GateError, match="images of 16 are missing"):
        run(annotations, images, max_missing_share=0.2)


def test_annotations_that_are_none_are_refused_before_anything_is_read(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.json, .*jsonfiles"):
        run(tmp_path / "empty", images)
    with pytest.raises(InputError, match=r"import_finehard\.images: .* is no folder"):
        run(annotations, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"import_finehard\.images names nothing"):
        run(annotations, "")


def test_a_killed_import_goes_on_with_the_group_it_was_in(tmp_path, run, monkeypatch):
    """The same bytes as of a run that was left alone, and whole groups are not read again."""
    from components.data.import_finehard import group

    annotations, images = write_finehard(tmp_path, 14)
    untouched = run(annotations, images, name="untouched")
    real, done = group.write_shard, []

    def dying(path: Path, samples) -> None:
        if len(done) == 2 and "die" in alive:
            raise KeyboardInterrupt
        done.append(path.parent.name)
        real(path, samples)

    alive = {"die"}
    monkeypatch.setattr(group, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        run(annotations, images, name="killed")
    alive.clear()
    again = run(annotations, images, name="killed")
    assert done == ["00000", "00001", "00002"]
    assert again.metrics == untouched.metrics
    assert again.rows == untouched.rows
    for one, other in zip(
        *(sorted(m.outputs["images"].rglob("*.tar")) for m in (again, untouched)), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


def test_what_pack_makes_of_it_meets_the_contract_and_says_what_it_is(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 24)
    made = run(annotations, images)
    data = tmp_path / "finehard"
    inputs = {name: made.outputs[name] for name in ("captions", "images")}
    inputs["quarantines"] = made.outputs["quarantine"].parent
    run_step(
        load_step("pack"),
        inputs,
        {"longgrit": data},
        {
            "dataset": "finehard",
            "source": "finehard",
            "benchmark_regions": 12,
            "benchmark_max_share": 0.3,
        },
    )
    card = (data / "README.md").read_text()
    assert "# FineHARD" in card
    assert "Apache-2.0" in card
    shard = next((data / "train").glob("*.tar"))
    member = next(member for member in members_of(shard) if member.name.endswith(".json"))
    with shard.open("rb") as file:
        file.seek(member.offset)
        sample = json.loads(file.read(member.size))
    assert sample["long_caption"].startswith("The image shows")
    assert sample["short_caption"] == sample["caption"]
    assert [len(region.get("hard_negatives", [])) for region in sample["regions"]] == [0, 10, 10, 0]
    receipt = run_step(
        load_step("check"),
        {"checked": data},
        {"data_docs": tmp_path / "docs"},
        {"artifact": "longgrit"},
    )
    assert receipt.metrics
