import io
import json
import tarfile
import time

import pytest
from PIL import Image

from components.core.errors import GateError
from components.core.shards import read_image_bytes, read_member
from components.core.step import load_step
from components.data.ingest.step import ingest
from data_contracts.images import SCHEMA


def all_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_the_step_is_found_by_its_name():
    assert load_step("ingest") is ingest


def test_every_url_has_one_row_in_order_and_every_image_one_member(site, ingest_urls, jpeg):
    urls = [site.serve(f"/{number}.jpg", jpeg(number)) for number in range(5)]
    urls.insert(2, site.url("/missing.jpg"))
    result = ingest_urls([*urls, urls[0]], images_per_shard=2)
    assert list(result.rows) == urls
    assert [row["shard"] for row in result.rows.values()] == [
        "00000.tar", "00000.tar", None, "00001.tar", "00002.tar", "00002.tar",
    ]  # fmt: skip
    assert site.asked["/0.jpg"] == 1
    row = result.rows[urls[1]]
    member = json.loads(read_member(result.images / row["shard"], f"{row['sha256']}.json"))
    assert read_image_bytes(result.images, row["shard"], row["sha256"]) == jpeg(1)
    assert member == {name: row[name] for name in member}
    assert set(SCHEMA.names) == set(row)


def test_the_same_bytes_are_stored_once(site, ingest_urls, jpeg):
    urls = [site.serve(path, jpeg(1)) for path in ("/a.jpg", "/b.jpg", "/c.jpg")]
    result = ingest_urls(urls, images_per_shard=1)
    assert [row["status"] for row in result.rows.values()] == ["ok"] * 3
    assert {row["shard"] for row in result.rows.values()} == {"00000.tar"}
    assert [path.name for path in result.images.glob("*.tar")] == ["00000.tar"]
    with tarfile.open(result.images / "00000.tar") as tar:
        assert len(tar.getnames()) == 2


def test_the_order_in_which_downloads_finish_changes_no_byte(site, ingest_urls, jpeg):
    def serve_all(pause_s):
        def answer(number):
            def run(handler):
                time.sleep(pause_s(number))
                site.answers[f"/good/{number % 7}"](handler)

            return run

        return [site.on(f"/{number}.jpg", answer(number)) for number in range(12)]

    for number in range(7):
        site.serve(f"/good/{number}", jpeg(number))
    first = ingest_urls(serve_all(lambda number: number * 0.02), images_per_shard=5)
    last = ingest_urls(
        serve_all(lambda number: (12 - number) * 0.02), into="again", images_per_shard=5
    )
    one = ingest_urls(serve_all(lambda number: 0), into="one", images_per_shard=5, concurrency=1)
    assert all_bytes(first.images) == all_bytes(last.images) == all_bytes(one.images)
    assert len(all_bytes(first.images)) == 3  # two shards hold all seven pictures


def test_the_regions_of_a_lost_image_are_quarantined_with_its_reason(site, ingest_urls, jpeg):
    good, gone = site.serve("/a.jpg", jpeg(1)), site.url("/gone.jpg")
    truncated = site.serve("/cut.jpg", jpeg(2)[:-200])
    result = ingest_urls([good, gone, good, gone, truncated])
    assert [row["region_id"] for row in result.quarantine] == ["1-00", "3-00", "4-00"]
    assert [row["reason"] for row in result.quarantine] == [
        "http_404", "http_404", "truncated_image",
    ]  # fmt: skip
    assert result.metrics == {
        "regions_in": 5,
        "regions_out": 2,
        "regions_quarantined": 3,
        "quarantined.http_404": 2,
        "quarantined.truncated_image": 1,
        "urls": 3,
        "urls_ok": 1,
        "urls_unanswered": 0,
        "link_rot": 0.6667,
        "bytes": len(jpeg(1)),
    }


def test_too_few_images_fail_with_the_histogram_of_reasons(site, ingest_urls, jpeg):
    urls = [site.serve("/a.jpg", jpeg(1)), *(site.url(f"/{number}") for number in range(3))]
    page = site.serve("/page", b"<html>this is no image</html>")
    with pytest.raises(GateError, match=r"1 of 5 .*http_404 3, not_an_image 1") as caught:
        ingest_urls([*urls, page], min_success_rate=0.3)
    assert caught.value.reasons == {"http_404": 3, "not_an_image": 1}
    assert ingest_urls([*urls, page], into="more", min_success_rate=0.2).metrics["urls_ok"] == 1


def test_a_rerun_of_a_draft_asks_again_only_after_transient_failures(site, ingest_urls, jpeg):
    good, gone = site.serve("/a.jpg", jpeg(1)), site.url("/gone")
    broken = site.serve("/broken", jpeg(2)[:-200])
    busy = site.serve("/busy", b"", 503)
    with pytest.raises(GateError):
        ingest_urls([good, gone, broken, busy], min_success_rate=0.5, retries=0)
    site.serve("/busy", jpeg(3))
    result = ingest_urls([good, gone, broken, busy], min_success_rate=0.5, retries=0)
    assert result.metrics["urls_ok"] == 2
    assert dict(site.asked) == {"/a.jpg": 1, "/gone": 1, "/broken": 1, "/busy": 2}


def test_no_records_make_an_empty_manifest(ingest_urls):
    result = ingest_urls([])
    assert (result.rows, result.quarantine, result.metrics["urls"]) == ({}, [], 0)


def test_many_hosts_and_few_slots_end(site, ingest_urls, jpeg):
    urls = [site.serve(f"/{number}.jpg", jpeg(number % 3)) for number in range(30)]
    result = ingest_urls(urls, concurrency=2, concurrency_per_host=1, decode_threads=1)
    assert result.metrics["urls_ok"] == 30


def test_a_stored_image_opens(site, ingest_urls, photo, encoded):
    url = site.serve("/a.png", encoded(photo(1).convert("RGBA"), "PNG"))
    result = ingest_urls([url])
    row = result.rows[url]
    data = read_image_bytes(result.images, row["shard"], row["sha256"])
    assert Image.open(io.BytesIO(data)).format == "JPEG"
