"""Values as tools write them are read, or left out by name: one bad entry costs itself."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.errors import GateError, InputError
from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import read_rows
from components.data.formats.values import (
    BadValueError,
    read_flag,
    read_id,
    record_number,
    shown,
)
from components.data.select.step import select
from tests.data.import_coco.coco_files import HEIGHT, WIDTH, annotation, content

IMPORT = load_step("import_coco")
LONG = 10**399


def image(number, name="b.jpg", width=WIDTH, height=HEIGHT):
    return {"id": number, "file_name": name, "width": width, "height": height}


def two_images(*annotations, second):
    """A good image with a dog, another image, and annotations."""
    value = content(annotation(), *annotations)
    value["images"].append(second)
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": "0"},
        {"iscrowd": False},
        {"iscrowd": None},
        {"iscrowd": 0.0},
        {"iscrowd": "False"},
        {"image_id": "9"},
        {"image_id": 9.0},
        {"image_id": "000000000009"},
        {"image_id": "9.0"},
        {"category_id": " 18 "},
        {"bbox": ["40", "30.0", " 2e2", 150]},
        {"bbox": None},
        {"bbox": []},
        {"id": LONG},
        {"id": None},
        {"id": "a1"},
        {"area": LONG},
        {"area": math.inf},
    ],
)
def test_an_annotation_as_a_tool_wrote_it_is_read(run, left_out, changes):
    metrics, [row] = run(content(annotation(**changes)))
    assert row["ref_exps"][0][2:6] == pytest.approx([0.1, 0.1, 0.6, 0.6])
    assert row["masks"][0]
    assert (metrics["regions"], left_out()) == (1, [])


@pytest.mark.parametrize("flag", ["1", True, 1.0, "true", "TRUE"])
def test_a_crowd_is_one_however_it_is_flagged(run, flag):
    metrics, [row] = run(content(annotation(), annotation(2, iscrowd=flag)))
    assert (metrics["crowds_left_out"], len(row["ref_exps"])) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iscrowd": "maybe"}, "bad_flag"),
        ({"iscrowd": [0]}, "bad_flag"),
        ({"bbox": [1, 2, 3]}, "bad_box"),
        ({"bbox": [1, 2, "wide", 4]}, "bad_box"),
        ({"bbox": [1, 2, math.nan, 4]}, "bad_box"),
        ({"bbox": [1, 2, LONG, 4]}, "bad_box"),
        ({"bbox": [1, 2, True, 4]}, "bad_box"),
        ({"bbox": ["1_0", 2, 3, 4]}, "bad_box"),
        ({"bbox": "1 2 3 4"}, "bad_box"),
        ({"bbox": None, "segmentation": None}, "bad_box"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4]]}, "bad_box"),
        ({"category_id": 5}, "unknown_category"),
        ({"category_id": None}, "bad_id"),
        ({"category_id": [18]}, "bad_id"),
        ({"image_id": 77}, "unknown_image"),
        ({"image_id": LONG}, "unknown_image"),
        ({"image_id": True}, "bad_id"),
        ({"image_id": {}}, "bad_id"),
        ({"caption": "\ud83d"}, "bad_text"),
        ({"caption": 5}, "bad_text"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_left_out_with_its_place(
    run, left_out, changes, reason
):
    metrics, [row] = run(content(annotation(), annotation(2, **changes)))
    assert len(row["ref_exps"]) == 1
    [entry] = left_out()
    assert entry["reason"] == reason
    assert "annotations[1]" in entry["place"]
    assert (metrics["left_out"], metrics[f"left_out.{reason}"]) == (1, 1)


@pytest.mark.parametrize("entry", [None, "x", [], 5])
def test_an_entry_that_is_no_object_is_left_out(run, left_out, entry):
    run(content(annotation(), entry))
    assert [found["reason"] for found in left_out()] == ["no_object"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (image(None), "bad_id"),
        (image([9]), "bad_id"),
        (image(1, width=2**31), "bad_size"),
        (image(1, width=LONG), "bad_number"),
        (image(1, width=math.nan), "bad_number"),
        (image(1, width=0), "bad_size"),
        (image(1, height=None), "bad_number"),
        (image(1, width="wide"), "bad_number"),
        (image(1, width=400.5), "bad_number"),
        (image(1, name=None), "bad_file_name"),
        (image(1, name=" "), "bad_file_name"),
        (image(1, name="../b.jpg"), "bad_file_name"),
        (image(1, name="C:\\photos\\b.jpg"), "bad_file_name"),
        (image(1, name="b\0.jpg"), "bad_file_name"),
        (image(1, name="\ud83d.jpg"), "bad_file_name"),
        (image(9, name="other.jpg") | {"id": "10"} | {"width": -5}, "bad_size"),
    ],
)
def test_an_image_that_cannot_be_used_is_left_out_with_its_place(run, left_out, second, reason):
    _, rows = run(two_images(second=second))
    assert [row["id"] for row in rows] == [9]
    assert [found["reason"] for found in left_out()] == [reason]


def test_numbers_of_an_image_may_be_texts(run):
    _, rows = run(two_images(second=image("12", width="400", height="300.0")))
    assert [(row["id"], row["width"]) for row in rows] == [(9, 400), (12, 400)]


def test_ids_that_are_texts_become_numbers_that_stay_the_same(run):
    ids = ["IMG_0001", "5f3a-0c", "007", str(LONG), LONG]
    value = content(*(annotation(image_id=i) for i in ids))
    value["images"] = [image(i, name=f"{n}.jpg") for n, i in enumerate(ids[:4])]
    metrics, rows = run(value)
    assert len({row["id"] for row in rows}) == 4
    assert metrics["regions"] == 5
    assert record_number("IMG_0001") == record_number("IMG_0001") < 2**63
    again, _ = run(value)
    assert again == metrics


def test_one_image_entered_twice_is_one_image(run, left_out):
    value = content(annotation())
    value["images"] *= 2
    metrics, [row] = run(value)
    assert (metrics["regions"], len(row["ref_exps"]), left_out()) == (1, 1, [])


def test_two_images_of_one_id_are_both_left_out_for_nobody_knows_which_is_meant(run, left_out):
    value = content(annotation(), annotation(2, image_id=5), annotation(3, image_id=5))
    value["images"] += [image(5), image(9, name="other.jpg")]
    _, rows = run(value)
    assert [row["id"] for row in rows] == [5]
    assert {found["reason"] for found in left_out()} == {"ambiguous_image", "unknown_image"}


def test_two_categories_of_one_id_name_nothing(run, left_out):
    value = content(annotation(), annotation(2, category=27))
    value["categories"].append({"id": 27, "name": "bus"})
    _, [row] = run(value)
    assert len(row["ref_exps"]) == 1
    assert {found["reason"] for found in left_out()} == {"ambiguous_category", "unknown_category"}


@pytest.mark.parametrize(
    "category",
    [
        None,
        {"id": 5},
        {"id": None, "name": "cat"},
        {"id": 5, "name": ""},
        {"id": 5, "name": "\udc00"},
    ],
)
def test_a_bad_category_costs_its_own_annotations(run, left_out, category):
    value = content(annotation(), annotation(2, category=27))
    value["categories"].append(category)
    _, [row] = run(value)
    assert (len(row["ref_exps"]), len(left_out())) == (2, 1)


@pytest.mark.parametrize("name", ["tv", "x", "猫", "C++", "(none)", "a.b*c", "ü", "İ", "ß"])
def test_a_name_of_one_or_two_characters_or_with_signs_stays_as_it_is(run, name):
    _, [row] = run(content(annotation(), categories=[{"id": 18, "name": name}]))
    start, end = map(int, row["ref_exps"][0][:2])
    assert row["caption"][start:end] == name


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("dog \ud83d", "dog"),
        ("\ude00 dog", "dog"),
        ("\ud83d\ude00 dog", "😀 dog"),
        ("caf\udce9", "café"),  # a byte that is not UTF-8
        ("dog\0\n\tdog", "dog\0 dog"),
    ],
)
def test_half_characters_in_a_name_do_not_cost_its_objects(run, name, read):
    value = json.dumps(content(annotation(), categories=[{"id": 18, "name": name}]))
    _, [row] = run(value)
    start, end = map(int, row["ref_exps"][0][:2])
    assert row["caption"][start:end] == read


def test_one_caption_that_is_not_utf8_costs_no_more_than_its_letters(run):
    caption = {"image_id": 9, "caption": "A dog in a CAFE"}
    value = json.dumps(content(annotation(), caption)).encode().replace(b"CAFE", b"caf\xe9")
    _, [row] = run(value)
    assert row["caption"] == "A dog in a café."


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_fault(run, encoding):
    _, [row] = run(json.dumps(content(annotation())).encode(encoding))
    assert row["caption"] == "dog"


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_of_thousands_of_digits_spoils_its_own_entry_only(run, left_out, digits):
    text = json.dumps(content(annotation(), annotation(2, bbox=[1, 2, 3, "BIG"])))
    _, [row] = run(text.replace('"BIG"', "9" * digits))
    assert len(row["ref_exps"]) == 1
    [entry] = left_out()
    assert len(entry["detail"]) < 500


def test_a_deep_value_spoils_its_own_entry_only(run, left_out):
    text = json.dumps(content(annotation(), annotation(2, bbox="DEEP")))
    _, [row] = run(text.replace('"DEEP"', "[" * 400 + "]" * 400))
    assert len(row["ref_exps"]) == 1
    assert left_out()[0]["reason"] == "bad_box"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (content(annotation(), categories=None), "the file names no categories"),
        (content(annotation(), categories=[]), "the file names no categories"),
        ({**content(), "annotations": None}, "no list 'annotations'"),
        ({**content(), "images": {"9": {}}}, "no list 'images'"),
        (content(annotation(image_id=5), annotation(image_id=6)), "none of 2 can be used"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused_with_the_reasons(run, value, message):
    with pytest.raises(InputError, match=message):
        run(value)


def test_an_import_that_left_out_too_much_is_not_published_until_the_settings_allow_it(
    tmp_path, photos
):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content(annotation(), *[annotation(image_id=5)] * 9)))
    outputs = {"grit": tmp_path / "grit"}
    places = {"images": str(photos), "annotations": str(path)}
    with pytest.raises(GateError, match=r"left out 9 of 13 entries \(unknown_image 9\)"):
        run_step(IMPORT, {}, outputs, places)
    assert not outputs["grit"].exists()
    run_step(IMPORT, {}, outputs, {**places, "max_left_out_share": 0.8})
    lines = (outputs["grit"] / "_left_out.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9


def test_a_changed_annotation_file_caption_file_or_picture_is_imported_anew(tmp_path, photos):
    files = {name: tmp_path / f"{name}.json" for name in ("annotations", "captions")}
    files["annotations"].write_text(json.dumps(content(annotation(), file_name="a.jpg")))
    files["captions"].write_text(json.dumps({"annotations": []}))
    (photos / "a.jpg").write_bytes(b"one")
    places = {"images": str(photos), **{name: str(path) for name, path in files.items()}}

    def imported():
        run_step(IMPORT, {}, {"grit": tmp_path / "grit"}, places)
        [row] = read_rows(tmp_path / "grit")
        return row

    first = imported()
    files["captions"].write_text(
        json.dumps({"annotations": [{"image_id": 9, "caption": "A dog."}]})
    )
    assert imported()["caption"] == "A dog."
    files["annotations"].write_text(files["annotations"].read_text().replace('"dog"', '"cat"'))
    assert "cat" in imported()["caption"]
    (photos / "a.jpg").write_bytes(b"two")
    assert imported()["url"] != first["url"]


def test_the_records_of_many_odd_values_pass_select(run, tmp_path):
    value = content(
        annotation(iscrowd="0"),
        annotation(2, category="27", bbox=["0", 0, 100, 300], segmentation=[]),
        annotation(3, bbox=[0, 0, -5, 1e300], segmentation=[[1, 2, 3, 4]]),
    )
    value["images"].append(image("a text", name="x\\y.jpg"))
    run(value)
    outputs = {"records": tmp_path / "records", "quarantine": tmp_path / "q.parquet"}
    run_step(select, {"grit": tmp_path / "grit"}, outputs, {})
    assert {row["phrase"] for row in read_rows(outputs["records"])} == {"dog", "traffic light"}
    [lost] = read_rows(outputs["quarantine"])
    assert lost["phrase"] == "dog"


def test_what_cannot_be_shown_is_named_by_its_type():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, LONG, "x" * 10**6, b"x", {"a": "\ud83d"}):
        assert len(shown(value)) < 200
    while deep:
        deep = deep.pop()  # or Python's own clean-up recurses


def test_ids_and_flags_that_mean_nothing_are_refused():
    for value in (None, True, 1.5, math.nan, math.inf, [], {}, "", " "):
        with pytest.raises(BadValueError, match="'id' is"):
            read_id(value, "id")
    for value in ("2", 2, -1, "no idea", []):
        with pytest.raises(BadValueError, match="'iscrowd' is"):
            read_flag(value, "iscrowd")


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**70), 2**70)
    | st.text(st.characters(), max_size=6)
    | st.sampled_from([LONG, "1e999", "0", "-0.0", "nan", "\ud83d", "../x", "9", 9, 18, "18"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [("images", key) for key in ("id", "file_name", "width", "height", None)]
    + [("categories", key) for key in ("id", "name", None)]
    + [
        ("annotations", key)
        for key in (
            "id",
            "image_id",
            "category_id",
            "bbox",
            "segmentation",
            "iscrowd",
            "caption",
            None,
        )
    ]
)


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(PLACES, JUNK), min_size=1, max_size=4))
def test_any_junk_in_one_image_leaves_the_others_as_they_are(run, changes):
    """Images 5 and 9 are there; image 6 and its own category are spoilt."""
    value = content(annotation(), annotation(2, 27, image_id=5), annotation(3, 31, image_id=6))
    value["images"] += [image(5, "five.jpg"), image(6, "six.jpg")]
    value["categories"].append({"id": 31, "name": "spoilt"})
    for (kind, key), junk in changes:
        if key is None or not isinstance(value[kind][-1], dict):
            value[kind][-1] = junk
        else:
            value[kind][-1][key] = junk
    _, rows = run(value)
    good = {row["url"]: row for row in rows}
    spoilt = value["images"][-1]
    takes = str(spoilt.get("id")) if isinstance(spoilt, dict) else ""  # another's id, perhaps
    for number, name in ((9, "cats%20%26%20dogs/a%20b.jpg"), (5, "five.jpg")):
        assert f"file:///{name}" in good or str(number) in takes
