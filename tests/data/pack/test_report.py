import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from components.core.counts import quarantine_row, write_quarantine
from components.core.step import load_step
from components.data.pack.settings import PackSettings

PACK = load_step("pack")
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></svg><script src=//evil.example/x.js></script>",
    "' onmouseover='alert(3)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(4)",
)
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text; and whether tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(run, **settings):
    longgrit = run.folder / "longgrit"
    longgrit.mkdir()
    options = {"val_share": 0.3, "benchmark_max_share": 0.3} | settings
    PACK.function(**run.inputs, longgrit=longgrit, settings=PackSettings(**options))
    return (longgrit / "report.html").read_text()


def test_the_page_shows_samples_rejections_and_their_reasons(make_run):
    text = "".join(Page(page_of(make_run())).text)
    for said in ("36 regions of 12 composed scenes", "a red", "What was rejected", "88 %"):
        assert said in text
    for reason in ("small_box", "http_404", "empty_mask", "rejected_invisible"):
        assert reason in text
    for detail in ("no pixel was chosen", "it speaks of a dog", "https://gone.example/x.jpg"):
        assert detail in text
    assert "They look pasted" in text


def test_every_sample_has_an_outline_for_each_of_its_regions(make_run):
    page = page_of(make_run(), report_images=6)
    assert page.count('<article class="sample">') == 6
    assert len(re.findall(r'<path class="mask [^>]* d="M[\d.]', page)) == 18
    assert page.count('class="long"') == 18


def as_part(row, number):
    """The first region of each image is the image, the others are parts by a rule."""
    if row["region_id"].endswith("-00"):
        row["box_source"] = "image"
        row["box_xyxy"] = [0.0, 0.0, row["image_width_px"], row["image_height_px"]]
    else:
        row["box_source"] = "points"
        row["point_xy"] = [row["box_xyxy"][0] + 5.0, row["box_xyxy"][1] + 4.0]


def test_a_part_is_shown_with_the_box_that_it_is_cut_out_by_and_whose_box_it_is(make_run):
    run = make_run(size=(640, 480), change=as_part)
    page = page_of(run, report_images=24)
    x1, y1, x2, y2 = run.rows[1]["box_xyxy"]
    box = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    assert re.search(f'<rect class="crop [^>]*{box}', page)
    assert f'cx="{x1 + 5:.1f}" cy="{y1 + 4:.1f}"' in page
    assert page.count('<circle class="point ') == page.count('class="crop ')
    assert page.count("a box by rule around an annotated point") == page.count('class="crop ')
    assert page.count("the whole picture") == page.count('<article class="sample">')


def test_the_number_of_the_whole_image_stands_in_its_corner_and_hides_no_part(make_run):
    page = page_of(make_run(size=(640, 480), change=as_part), report_images=6)
    assert page.count('class="badge c0 r0" transform="translate(19.5 19.5)') == 6
    assert page.count('<path class="mask') == 12


def test_parts_that_the_annotators_did_not_see_are_named_beside_the_image(make_run):
    run = make_run(change=as_part)
    unseen = {**run.rows[0], "region_id": "0-09", "phrase": "left eye"}
    hidden = quarantine_row("import_parts", unseen, "part_not_visible", "marked as not visible")
    other = {**run.rows[0], "region_id": "0-10", "phrase": "tail"}
    write_quarantine(
        run.folder / "quarantine" / "import_parts.parquet",
        [hidden, quarantine_row("import_parts", other, "part_off_object", "elsewhere")],
    )
    assert page_of(run, report_images=24).count("Not visible here, so no regions: left eye.") == 1


def test_every_split_is_shown(make_run):
    page = page_of(make_run(num_images=30), report_images=8)
    shown = re.findall(r'<figcaption><span class="split (\w+)">', page)
    assert [shown.count(split) for split in ("train", "val", "benchmark")] == [4, 2, 2]


def test_the_funnel_adds_up_from_the_kept_regions_backwards(make_run):
    page = page_of(make_run())
    counts = re.findall(r"<b>(\d+)</b> of (\d+) <em>−(\d+)</em>", page)
    assert counts == [("40", "41", "1"), ("38", "40", "2"), ("37", "38", "1"), ("36", "37", "1")]
    assert "<b>38</b> of 38 </span>" in page  # deduplicate dropped nothing


def test_regions_that_a_detector_found_come_in_where_it_looked(make_run):
    def change(row, number):
        row["box_source"] = "detector:some/model@1>=0.3" if number == 0 else "image"

    run = make_run(change=change)
    counts = re.findall(r"<b>(\d+)</b> of (\d+)(?: \+ (\d+) found)? ", page_of(run))
    assert counts == [
        ("37", "38", ""),  # select
        ("35", "37", ""),  # ingest
        ("35", "35", ""),  # deduplicate
        ("38", "35", "3"),  # detect_parts
        ("37", "38", ""),  # segment
        ("36", "37", ""),  # describe
    ]
    card = (run.folder / "longgrit" / "README.md").read_text(encoding="utf-8")
    assert "| detect\\_parts | 35 + 3 found | 38 | 0 |" in card


def test_the_page_and_the_card_tell_which_masks_could_not_be_read(make_run):
    def change(row, number):
        row["mask_fault"] = "parts left out: two_points 1" if number < 2 else None
        row["mask_source"] = "grabcut" if number == 0 else "record"

    run = make_run(change=change)
    card = run.folder / "longgrit" / "README.md"
    for text in (page_of(run), card.read_text(encoding="utf-8")):
        assert (
            "masks 3 were repaired or lack parts that could not be read; 3 could not be read at all"
            in text
        )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_texts_of_strangers_stay_text(make_run, payload):
    def poison(row, number):
        for name in ("phrase", "image_caption", "object_caption", "long_caption", "url"):
            row[name] = payload
        row["context_caption"] = row["short_caption"] = row["subset"] = payload
        row["provenance"] = f'{{"merge": {{"model": {quoted(payload)}}}}}'

    run = make_run(num_images=4, change=poison)
    bad = {**run.rows[0], "region_id": payload, "box_xyxy": [1, 1, 5, 5]}
    rows = [quarantine_row("describe", bad, "markup", payload) | {"reason": payload}]
    write_quarantine(run.folder / "quarantine" / "describe-00001.parquet", rows)
    page = Page(page_of(run))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/jpeg;") for n, value in page.attributes if n == "src")
    assert all(value.startswith("#") for n, value in page.attributes if n == "href")
    assert payload in "".join(page.text)


def quoted(text):
    return '"' + text.replace('"', '\\"') + '"'


def test_the_page_asks_nothing_of_the_network(make_run):
    page = page_of(make_run())
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|<link|<iframe|<script", page)


def test_a_region_without_a_usable_box_is_shown_without_one(make_run):
    run = make_run()
    nowhere = {**run.rows[0], "region_id": "x", "box_xyxy": [float("nan"), 0, 5, 5]}
    write_quarantine(
        run.folder / "quarantine" / "deduplicate.parquet",
        [quarantine_row("deduplicate", nowhere, "tiny_box", "")],
    )
    page = page_of(run)
    assert "nan" not in re.findall(r'class="box" x="([^"]*)"', page)
    assert page.count('class="box"') == 2


def test_rejected_boxes_stand_where_they_are_in_the_picture(make_run):
    run = make_run(size=(640, 480))
    row = next(r for r in run.rows if r["region_id"] == "1-00")  # the one `segment` dropped
    x1, y1, x2, y2 = (value / 2 for value in row["box_xyxy"])  # shown 320 pixels wide
    box = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    assert f'<rect class="box" {box}/>' in page_of(run)


def test_a_region_dropped_before_the_download_is_shown_on_the_image_its_siblings_brought(make_run):
    run = make_run(size=(640, 480))
    early = {"region_id": "1-09", "record_id": "1", "url": run.rows[3]["url"], "phrase": "a dot"}
    early["box_norm"] = [0.25, 0.5, 0.75, 1.0]
    write_quarantine(
        run.folder / "quarantine" / "select.parquet",
        [quarantine_row("select", early, "low_score", "0.1")],
    )
    assert '<rect class="box" x="80.0" y="120.0" width="160.0" height="120.0"/>' in page_of(run)


def test_the_examples_show_many_reasons_and_each_record_once(make_run):
    run = make_run()
    rows = [
        quarantine_row("select", {**run.rows[3 * i], "region_id": f"{i}-{j}"}, "low_score", "")
        for i in range(6)
        for j in range(3)
    ]
    write_quarantine(run.folder / "quarantine" / "select.parquet", rows)
    page = page_of(run)
    assert page.count('<article class="reject">') == 3 + 1 + 1 + 1


def test_the_page_stays_below_five_megabytes_whatever_the_images_hold(make_run):
    def noise(number):
        random = np.random.default_rng(number)
        return Image.fromarray(random.integers(0, 255, (720, 720, 3), dtype=np.uint8))

    page = page_of(make_run(num_images=12, backdrops=noise), report_images=60)
    assert 3 < page.count('<article class="sample">') < 12
    assert 1_000_000 < len(page.encode()) < 5_000_000


def test_the_page_can_be_made_without_pictures(make_run):
    page = page_of(make_run(), report_images=0, report_rejected=0)
    assert "without samples" in page
    assert "data:image" not in page.split("</style>")[1]
