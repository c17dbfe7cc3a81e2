"""`import-coco`: your own images and annotations become GRIT records with exact masks."""

import json
import uuid

import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.tables import read_rows
from components.data.formats.segmentation import UnusableMaskError, mask_counts
from components.data.formats.values import safe_path
from components.data.import_coco.addresses import address_maker
from components.data.import_coco.step import import_coco
from components.data.select.step import select
from pixclip.masks import Rle, decode_mask, encode_mask
from tests.data.import_coco.coco_files import HEIGHT, WIDTH, annotation, content


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def phrases(row):
    return [row["caption"][int(start) : int(end)] for start, end, *_ in row["ref_exps"]]


def test_an_image_becomes_a_record_with_normalised_boxes(run):
    metrics, [row] = run(content(annotation(), annotation(2, 27, bbox=[0, 0, 100, 300])))
    assert (row["id"], row["url"]) == (9, "file:///cats%20%26%20dogs/a%20b.jpg")
    assert row["caption"] == "dog and traffic light"
    assert phrases(row) == ["dog", "traffic light"]
    assert row["ref_exps"][0][2:] == pytest.approx([0.1, 0.1, 0.6, 0.6, 1.0])
    assert row["ref_exps"][1][2:] == pytest.approx([0, 0, 0.25, 1, 1.0])
    assert metrics["regions"] == 2


def test_the_records_pass_select_with_their_masks(run, tmp_path):
    run(content(annotation()), split="benchmark")
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "select.parquet"}
    run_step(select, {"grit": tmp_path / "grit"}, outputs, {})
    [row] = read_rows(outputs["records"])
    assert (row["phrase"], row["split"], row["clip_similarity"]) == ("dog", "benchmark", None)
    mask = decode_mask(Rle(*row["mask_size"], row["mask_counts"]))
    assert (mask == rectangle(40, 30, 240, 180)).all()


def test_captions_are_used_and_names_that_they_lack_are_added(run):
    captions = [
        {"id": 50, "image_id": 9, "caption": "A Dog runs\n after a dogcatcher"},
        {"id": 51, "image_id": 9, "caption": "Nice!"},
    ]
    _, [row] = run(content(annotation(), annotation(2, 27), *captions))
    assert row["caption"] == "A Dog runs after a dogcatcher. Nice! Also shown: traffic light."
    assert phrases(row) == ["Dog", "traffic light"]


def test_captions_may_be_in_a_file_of_their_own(run, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": [{"image_id": 9, "caption": "My dog."}]}))
    _, [row] = run(content(annotation()), captions=str(path))
    assert (row["caption"], phrases(row)) == ("My dog.", ["dog"])


def test_a_name_inside_another_word_is_not_the_object(run):
    _, [row] = run(content(annotation(), {"image_id": 9, "caption": "A hotdog"}))
    assert row["caption"] == "A hotdog. Also shown: dog."
    assert row["ref_exps"][0][:2] == [22.0, 25.0]


def test_crowds_are_counted_and_left_out_unless_wanted(run):
    counts = [0, 300 * 10, 300 * 390]
    crowd = annotation(2, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": counts[1:]})
    metrics, [row] = run(content(annotation(), crowd))
    assert (metrics["crowds_left_out"], len(row["ref_exps"])) == (1, 1)
    metrics, [row] = run(content(annotation(), crowd), keep_crowds=True)
    assert (metrics["crowds_left_out"], len(row["ref_exps"])) == (0, 2)
    mask = decode_mask(Rle(HEIGHT, WIDTH, row["masks"][1]))
    assert (mask == rectangle(10, 0, 400, 300)).all()


def test_an_import_of_crowds_alone_is_refused_with_the_setting_that_keeps_them(tmp_path, photos):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content(annotation(1, iscrowd=1), annotation(2, iscrowd=1))))
    outputs = {"grit": tmp_path / "grit"}
    settings = {"images": str(photos), "annotations": str(path)}
    with pytest.raises(GateError, match=r"all 2 regions .iscrowd 2.*import_coco.keep_crowds=true"):
        run_step(import_coco, {}, outputs, settings)
    run_step(import_coco, {}, outputs, settings | {"keep_crowds": True})


def test_an_object_with_a_caption_of_its_own_stays_an_object(run):
    captioned = annotation(1, caption="A man"), annotation(2, category=27, caption="")
    metrics, [row] = run(content(*captioned, {"id": 3, "image_id": 9, "caption": "A room."}))
    assert phrases(row) == ["dog", "traffic light"]
    assert row["caption"] == "A man. A room. Also shown: dog and traffic light."
    assert metrics["left_out"] == 0


def test_images_without_a_file_name_are_found_by_the_end_of_their_address(run, photos):
    (photos / "train2017").mkdir()
    (photos / "train2017" / "9.jpg").write_bytes(b"picture")
    image = {"id": 9, "coco_url": "http://images.cocodataset.org/train2017/9.jpg"}
    size = {"width": WIDTH, "height": HEIGHT}
    _, [row] = run(content(annotation(), images=[image | size]))
    assert row["url"].startswith("file:///train2017/9.jpg#sha256=")


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ([-1, -0.5, 100, 100], [0, 0, 99, 99.5]),
        ([300.4, 200.3, 100.6, 100.7], [300.4, 200.3, 400, 300]),
        ([299.1, 40, 101.9, 10], [299.1, 40, 400, 50]),
    ],
)
def test_a_box_that_leaves_the_image_by_rounding_is_cut_off(run, box, inside):
    _, [row] = run(content(annotation(bbox=box)))
    shares = [value / side for value, side in zip(inside, (WIDTH, HEIGHT) * 2, strict=True)]
    assert row["ref_exps"][0][2:6] == pytest.approx(shares)
    assert max(row["ref_exps"][0][2:6]) <= 1


def test_a_box_that_leaves_the_image_by_more_is_left_to_select(run):
    _, [row] = run(content(annotation(bbox=[-2, 30, 100, 100])))
    assert row["ref_exps"][0][2] == -2 / WIDTH


def test_an_image_without_objects_is_a_record_without_regions(run):
    metrics, [row] = run(content())
    assert (row["ref_exps"], row["masks"], metrics["regions"]) == ([], [], 0)


def test_a_mask_that_does_not_fit_is_counted_and_its_region_stays(run):
    other_size = {"size": [10, 10], "counts": [50, 50]}
    metrics, [row] = run(content(annotation(segmentation=other_size), annotation(2)))
    assert metrics["masks_unusable"] == 1
    assert row["masks"][0] is None
    assert row["masks"][1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "the top level is no object"),
        ("{}", "has no list 'images'"),
        ("[" * 200_000, "is not JSON"),
        (content(images=[{"id": 9}]), r"images\[0\]: 'width' is None"),
        (content(images=[{"id": "nine", "width": 1, "height": 1}]), r"images\[0\]"),
        (content(images=["x"]), r"images\[0\] is no object"),
        (
            content(images=[*content()["images"], *content(file_name="b.jpg")["images"]]),
            "id 9 occurs twice",
        ),
        (content(annotation(bbox=[1, 2, 3])), r"annotations\[0\]: 'bbox' is \[1, 2, 3\]"),
        (content(annotation(category=5)), r"annotations\[0\]: there is no category 5"),
        (content(annotation(image_id=5)), r"annotations\[0\]: there is no image 5"),
        (content(file_name="../../etc/passwd"), "does not stay below"),
        (content(file_name="/etc/passwd"), "does not stay below"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place_and_the_key(run, value, message):
    with pytest.raises(InputError, match=message):
        run(value)


@pytest.mark.parametrize("name", ["..", "a/../../b", "/a", "a\\..\\b", "a\0b"])
def test_a_file_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(InputError, match="does not stay below"):
        safe_path(name)


def test_images_in_a_store_have_s3_addresses():
    assert address_maker("s3://mine/photos/")("a b.jpg") == "s3://mine/photos/a b.jpg"
    assert address_maker("s3://mine")("x/y.jpg") == "s3://mine/x/y.jpg"


def test_annotations_come_from_a_store(tmp_path, s3_endpoint):
    bucket = f"coco-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a/i.json", Body=json.dumps(content(annotation())))
    places = {"images": f"s3://{bucket}/photos", "annotations": f"s3://{bucket}/a/i.json"}
    grit = tmp_path / "grit"
    run_step(import_coco, {}, {"grit": grit}, {**places, "endpoint_url": s3_endpoint})
    [row] = read_rows(grit)
    assert row["url"] == f"s3://{bucket}/photos/cats & dogs/a b.jpg"
    places["annotations"] = f"s3://{bucket}/missing"
    with pytest.raises(InputError, match=f"cannot read s3://{bucket}/missing"):
        run_step(import_coco, {}, {"grit": grit}, {**places, "endpoint_url": s3_endpoint})


def test_missing_settings_are_named(tmp_path):
    with pytest.raises(InputError, match=r"import_coco\.images is empty"):
        run_step(import_coco, {}, {"grit": tmp_path / "grit"}, {})


masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.lists(
        st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]
    ).map(lambda bits: np.array(bits, dtype=bool).reshape(size))
)


@settings(deadline=None, max_examples=60)
@given(masks)
def test_both_forms_of_rle_give_the_same_mask(mask):
    height, width = mask.shape
    runs, value = [], False
    for bit in mask.T.ravel().tolist():  # column by column
        if bit != value or not runs:
            runs += [0] if not runs and bit else []
            runs.append(0)
            value = bit
        runs[-1] += 1
    size = [height, width]
    compressed = encode_mask(mask).counts
    if not mask.any():
        with pytest.raises(UnusableMaskError, match="empty"):
            mask_counts({"size": size, "counts": runs}, height, width)
        return
    for counts in (runs, compressed):
        found = mask_counts({"size": size, "counts": counts}, height, width)
        assert (decode_mask(Rle(height, width, found)) == mask).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-1e12, 1e12), min_size=6, max_size=12), min_size=1, max_size=3))
def test_any_polygon_gives_a_mask_of_the_image_or_none(polygons):
    try:
        counts = mask_counts(polygons, 40, 50)
    except UnusableMaskError:
        return
    assert decode_mask(Rle(40, 50, counts)).any()


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        ["polygon"],
        "polygon",
        {"size": [300, 400]},
        {"size": [300, 400], "counts": [1, 2]},
        {"size": [300, 400], "counts": [-5, 120005]},
        {"size": [300, 400], "counts": "zzzzzzzzzzz"},
        {"size": [300, 400], "counts": "é"},
        {"size": [300, 400], "counts": [120000]},
    ],
)
def test_a_damaged_segmentation_is_refused_before_it_is_decoded(segmentation):
    with pytest.raises(UnusableMaskError):
        mask_counts(segmentation, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("polygon", "height_px", "width_px"),
    [
        ([0, 0, 2**31 - 1, 1, 5, 1], 1, 2**31 - 1),  # overflows pycocotools' coordinates
        ([0, 0, 40_000, 40_000] * 1000, 40_000, 40_000),  # would take gigabytes
    ],
)
def test_an_endless_outline_is_refused_before_it_is_drawn(polygon, height_px, width_px):
    with pytest.raises(UnusableMaskError, match="outline"):
        mask_counts([polygon], height_px, width_px)


def test_polygons_agree_with_pycocotools():
    star = [[60, 50, 100, 90, 160, 60, 120, 130, 60, 120], [200, 200, 250, 200, 225, 280]]
    expected = coco.decode(coco.merge(coco.frPyObjects(star, HEIGHT, WIDTH))).astype(bool)
    found = decode_mask(Rle(HEIGHT, WIDTH, mask_counts(star, HEIGHT, WIDTH)))
    assert (found == expected).all()
