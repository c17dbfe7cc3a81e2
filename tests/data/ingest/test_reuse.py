"""What was downloaded moves along: to a rerun, to other settings, to other records."""

import functools

import pytest

from components.core.errors import GateError, PipelineError
from components.core.run import run_step
from components.core.shards import read_image_bytes
from components.data.ingest.journal import Entry, read_entries
from components.data.ingest.reuse import fits
from components.data.ingest.settings import IngestSettings
from components.data.ingest.step import ingest, max_unanswered
from data_contracts.engine.contract import contract_digest
from tests.data.ingest.conftest import QUICK
from tests.receipts import write_receipt


@pytest.fixture
def run(tmp_path, write_records):
    """Run the whole step on URLs, with these settings beside the usual ones."""

    def run_with(urls, **settings):
        folder = write_records(urls)
        write_receipt(
            folder, "select", "records", contracts={"records": contract_digest("records")}
        )
        outputs = {"images": tmp_path / "images", "quarantine": tmp_path / "q.parquet"}
        return run_step(ingest, {"records": folder}, outputs, {**QUICK, **settings}).metrics

    return run_with


@pytest.fixture
def urls(site, jpeg):
    """Five pictures, one missing, one page."""
    good = [site.serve(f"/{number}.jpg", jpeg(number)) for number in range(5)]
    return [*good, site.url("/gone.jpg"), site.serve("/page.jpg", b"<html>no image</html>")]


def test_following_the_advice_of_the_gate_asks_nobody_again(run, urls, site):
    with pytest.raises(GateError, match=r"5 of 7 .*lower the rate"):
        run(urls, min_success_rate=0.9)
    asked = site.asked.copy()
    assert run(urls, min_success_rate=0.5)["urls_ok"] == 5
    assert site.asked == asked


def test_a_published_result_is_judged_again_by_another_threshold(run, urls, site):
    run(urls, min_success_rate=0.5)
    asked = site.asked.copy()
    with pytest.raises(GateError, match=r"5 of 7 .*http_404 1"):
        run(urls, min_success_rate=0.9)
    assert site.asked == asked


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"images_per_shard": 2}, set()),
        ({"min_side_px": 20}, set()),
        ({"max_pixels": 10_000}, set()),
        ({"max_bytes": 1_000_000}, set()),
        ({"max_redirects": 4}, set()),
        ({"s3_buckets": ["mine"]}, set()),
        ({"user_agent": "somebody/1"}, {"/gone.jpg", "/page.jpg"}),
        ({"allowed_hosts": ["127.0.0.1", "images.test"]}, {"/gone.jpg", "/page.jpg"}),
        ({"allowed_hosts": []}, set()),
    ],
)
def test_other_settings_ask_again_only_for_what_may_end_otherwise(run, urls, site, change, again):
    with pytest.raises(GateError):
        run(urls, min_success_rate=0.9)
    asked = site.asked.copy()
    with pytest.raises(GateError):
        run(urls, min_success_rate=0.9, **change)
    assert set(site.asked - asked) == again


def test_other_records_take_along_what_they_share(run, urls, site, jpeg):
    with pytest.raises(GateError):
        run(urls, min_success_rate=0.9)
    asked = site.asked.copy()
    more = [*urls[2:5], site.serve("/new.jpg", jpeg(9))]
    assert run(more, min_success_rate=0.9)["urls_ok"] == 4
    assert site.asked - asked == {"/new.jpg": 1}


def test_a_limit_that_was_raised_lets_in_what_was_too_large(run, site, jpeg):
    urls = [site.serve("/a.jpg", jpeg(1))]
    with pytest.raises(GateError, match="too_large 1"):
        run(urls, min_success_rate=1, max_bytes=500)
    assert run(urls, min_success_rate=1)["urls_ok"] == 1


def test_bytes_that_other_settings_would_not_let_in_are_not_used(ingest_urls, site, jpeg):
    site.serve("/good.jpg", jpeg(1))
    moved = site.serve("/moved.jpg", b"", 302, Location="/good.jpg")
    art = site.serve("/art.jpg", jpeg(2), X_Robots_Tag="noai")
    urls = [moved, art]
    assert ingest_urls(urls, respect_noai=False).metrics["urls_ok"] == 2
    result = ingest_urls(urls, max_redirects=0, max_bytes=len(jpeg(1)))
    assert [result.reason(url) for url in urls] == ["too_many_redirects", "noai"]
    small = ingest_urls([moved], max_bytes=len(jpeg(1)) - 1)
    assert small.reason(moved) == "too_large"
    private = ingest_urls(urls, allowed_hosts=[])
    assert [private.reason(url) for url in urls] == ["private_address"] * 2


@pytest.mark.parametrize("spelling", ["IMAGES.test", "images.test.", "images.test"])
def test_an_allowed_host_is_the_same_however_it_is_spelt(ingest_urls, site, jpeg, spelling):
    class Names:
        async def addresses(self, host):
            return ["127.0.0.1"]

    site.serve("/a.jpg", jpeg(1))
    url = site.url("/a.jpg", "Images.Test")
    for _ in range(2):
        result = ingest_urls([url], resolver=Names(), allowed_hosts=[spelling])
        assert result.reason(url) == ""
    assert site.asked["/a.jpg"] == 1


@pytest.mark.parametrize("scheme", ["s3", "S3"])
def test_an_object_is_not_used_after_its_bucket_was_forbidden(scheme):
    fields = {"url": f"{scheme}://mine/a.jpg", "reason": "", "is_transient": False, "facts": {}}
    entry = Entry(fields, 0, 10, 0)
    assert fits(entry, IngestSettings(s3_buckets=("mine",)))
    assert not fits(entry, IngestSettings(s3_buckets=("other",)))


def test_a_check_is_made_again_when_its_limits_change(ingest_urls, site, jpeg):
    url = site.serve("/a.jpg", jpeg(1))
    reasons = [
        ingest_urls([url], **limits).reason(url)
        for limits in ({"min_side_px": 49}, {}, {"max_pixels": 9}, {"min_side_px": 48})
    ]
    assert reasons == ["too_small", "", "too_many_pixels", ""]
    assert site.asked["/a.jpg"] == 1


def test_a_damaged_record_is_asked_for_again_alone(ingest_urls, urls, site, caplog):
    first = ingest_urls(urls)
    journal = first.images / "_work" / "journal"
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    before = site.asked.copy()
    again = ingest_urls(urls)
    assert (site.asked - before).total() <= 1
    assert again.rows == first.rows
    assert "is damaged in 1 place" in caplog.text


def test_a_picture_that_is_another_one_when_asked_again_is_checked_again(ingest_urls, site, jpeg):
    url = site.serve("/a.jpg", jpeg(1))
    first = ingest_urls([url])
    site.serve("/a.jpg", jpeg(2))
    damage_payload_of_first_record(first.images / "_work" / "journal")
    row, member = ingest_urls([url]).rows[url], first.images
    assert row["sha256"] != first.rows[url]["sha256"]
    assert read_image_bytes(member, row["shard"], row["sha256"]) == jpeg(2)


def damage_payload_of_first_record(journal):
    entry = next(iter(read_entries(journal)))
    with journal.open("r+b") as file:
        file.seek(entry.offset + 5)
        file.write(b"\0\0\0\0")


def test_a_file_is_read_again_and_kept_once(ingest_urls, tmp_path, jpeg):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(jpeg(seed))
    read = functools.partial(ingest_urls, ["file:///x.jpg"])
    first = read(file_root=str(tmp_path / "a")).rows["file:///x.jpg"]["sha256"]
    journal = tmp_path / "images" / "_work" / "journal"
    size = journal.stat().st_size
    assert read(file_root=str(tmp_path / "a")).rows["file:///x.jpg"]["sha256"] == first
    assert journal.stat().st_size == size
    assert read(file_root=str(tmp_path / "b")).rows["file:///x.jpg"]["sha256"] != first


def test_a_folder_of_files_that_is_not_there_stops_the_step(ingest_urls, tmp_path):
    with pytest.raises(PipelineError, match=r"is no folder: set ingest\.file_root"):
        ingest_urls(["file:///x.jpg"], file_root=str(tmp_path / "not mounted"))


def test_too_many_urls_without_an_answer_are_not_published(run, urls, site):
    busy = [site.serve(f"/busy/{number}", b"", 503) for number in range(4)]
    with pytest.raises(GateError, match=r"4 of 11 URLs were given up .* allows 3 of so") as caught:
        run([*urls, *busy], retries=0)
    assert caught.value.reasons["http_503"] == 4
    for number in range(4):
        site.answers[f"/busy/{number}"] = site.answers["/1.jpg"]
    asked = site.asked.copy()
    assert run([*urls, *busy], retries=0)["urls_ok"] == 9
    assert set(site.asked - asked) == {f"/busy/{number}" for number in range(4)}


@pytest.mark.parametrize(
    ("num_urls", "share", "allowed"),
    [
        (0, 0.2, 0),
        (1, 0.2, 0),
        (2, 0.2, 0),
        (6, 0.2, 2),
        (100, 0.2, 24),
        (10_000, 0.2, 2040),
        (6, 0.0, 0),
        (6, 1.0, 6),
        (1, 1.0, 1),
        (6, 0.99, 5),
    ],
)
def test_of_a_short_list_some_may_be_silent_by_chance_but_never_all(num_urls, share, allowed):
    assert max_unanswered(num_urls, share) == allowed
