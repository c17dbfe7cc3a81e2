import gzip
import os
import socket
import struct
import time
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.ingest.failures import FetchError
from components.data.ingest.web import forbids_ai, parse_web_url, retry_after_s


def test_a_good_image_arrives_with_its_own_bytes(site, ingest_urls, jpeg):
    url = site.serve("/a.jpg", jpeg(1))
    row = ingest_urls([url]).rows[url]
    assert (row["status"], row["num_bytes"]) == ("ok", len(jpeg(1)))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_client_error_is_final(site, ingest_urls, status):
    url = site.serve("/gone", b"gone", status)
    assert ingest_urls([url]).reason(url) == f"http_{status}"
    assert site.asked["/gone"] == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_transient_status_is_asked_again(site, ingest_urls, status):
    url = site.serve("/busy", b"busy", status)
    assert ingest_urls([url], retries=2).reason(url) == f"http_{status}"
    assert site.asked["/busy"] == 3


def test_a_host_that_recovers_gives_its_image(site, ingest_urls, jpeg):
    def flaky(handler):
        if site.asked["/a.jpg"] == 1:
            handler.send_error(500)
        else:
            site.answers["/good"](handler)

    site.serve("/good", jpeg(1))
    url = site.on("/a.jpg", flaky)
    assert ingest_urls([url]).rows[url]["status"] == "ok"


def test_retry_after_is_honoured_for_the_whole_host(site, ingest_urls, jpeg):
    asked_at_s: list[float] = []

    def limited(handler):
        asked_at_s.append(time.monotonic())
        if len(asked_at_s) == 1:
            handler.send_response(429)
            handler.send_header("Retry-After", "1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            site.answers["/good"](handler)

    site.serve("/good", jpeg(1))
    urls = [site.on(path, limited) for path in ("/a.jpg", "/b.jpg")]
    result = ingest_urls(urls, concurrency=1)
    assert result.metrics["urls_ok"] == 2
    assert asked_at_s[1] - asked_at_s[0] >= 1.0


def test_an_unreasonable_retry_after_is_cut(site, ingest_urls):
    url = site.serve("/later", b"", 429, Retry_After="86400")
    started_s = time.monotonic()
    assert ingest_urls([url], max_backoff_s=0.2).reason(url) == "http_429"
    assert time.monotonic() - started_s < 5


def test_a_slow_host_costs_only_the_time_limit(site, ingest_urls):
    url = site.on("/slow", lambda handler: time.sleep(3))
    started_s = time.monotonic()
    assert ingest_urls([url], read_timeout_s=0.2, retries=0).reason(url) == "timeout"
    assert time.monotonic() - started_s < 2


def test_a_body_that_drips_forever_meets_the_limit_for_the_whole(site, ingest_urls, jpeg):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(jpeg(1)[:100])
        for _ in range(40):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    url = site.on("/drip", drip)
    result = ingest_urls([url], read_timeout_s=5, total_timeout_s=0.3, retries=0)
    assert result.reason(url) == "timeout"


def test_headers_that_drip_forever_meet_the_limit_for_the_whole(site, ingest_urls):
    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(40):
            handler.wfile.write(b"X-%d: y\r\n" % number)
            time.sleep(0.05)

    url = site.on("/drip", drip)
    result = ingest_urls([url], read_timeout_s=5, total_timeout_s=0.3, retries=0)
    assert result.reason(url) == "timeout"


def test_a_connection_reset_in_the_body_is_asked_again_and_named(site, ingest_urls, jpeg):
    def reset(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(jpeg(1))))
        handler.end_headers()
        handler.wfile.write(jpeg(1)[:500])
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(handler.connection.detach())  # at once, although the handler still holds files
        raise ConnectionResetError

    url = site.on("/reset", reset)
    assert ingest_urls([url]).reason(url) == "connection_broken"
    assert site.asked["/reset"] == 2


def test_nothing_listening_is_a_failed_connection(ingest_urls):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.jpg"
        assert ingest_urls([url]).reason(url) == "connection_failed"


def test_an_answer_that_is_no_http_is_named(site, ingest_urls):
    url = site.on("/junk", lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n"))
    assert ingest_urls([url]).reason(url) == "bad_response"


def test_a_declared_huge_body_is_not_read(site, ingest_urls, jpeg):
    sent: list[int] = []

    def huge(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        for _ in range(10_000):
            sent.append(handler.wfile.write(jpeg(1) * 100))

    url = site.on("/huge", huge)
    row = ingest_urls([url]).rows[url]
    assert (row["reason"], row["detail"].split()[0]) == ("too_large", "declared")
    assert sum(sent) < 50_000_000
    assert site.asked["/huge"] == 1


def test_an_undeclared_huge_body_is_cut_at_the_limit(site, ingest_urls, jpeg):
    sent: list[int] = []

    def huge(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(10_000):
            sent.append(handler.wfile.write(jpeg(1) * 100))

    url = site.on("/huge", huge)
    assert ingest_urls([url], max_bytes=200_000).reason(url) == "too_large"
    assert sum(sent) < 50_000_000


def test_a_packed_body_is_unpacked(site, ingest_urls, jpeg):
    urls = [
        site.serve("/gzip", gzip.compress(jpeg(1)), Content_Encoding="gzip"),
        site.serve("/deflate", zlib.compress(jpeg(2)), Content_Encoding="deflate"),
    ]
    assert ingest_urls(urls).metrics["urls_ok"] == 2
    assert "Accept-Encoding" not in site.requests[0]


def test_a_gzip_bomb_is_not_unpacked_past_the_limit(site, ingest_urls, jpeg):
    bomb = gzip.compress(jpeg(1) + b"\0" * 50_000_000, 1)
    url = site.serve("/bomb", bomb, Content_Encoding="gzip")
    assert len(bomb) < 1_000_000
    assert ingest_urls([url], max_bytes=1_000_000).reason(url) == "too_large"


@pytest.mark.parametrize(
    "tail", [b"x" * 4_000_000, b"\0\0\0\xff\xff" * 800_000], ids=["after the end", "empty blocks"]
)
def test_packed_bytes_that_unpack_to_nothing_are_not_read_for_ever(site, ingest_urls, jpeg, tail):
    # What follows the end of a stream, and a stream of empty blocks.
    stream = zlib.compressobj(wbits=31)
    head = stream.compress(jpeg(1)) + stream.flush(zlib.Z_FULL_FLUSH)
    body = (gzip.compress(jpeg(1)) if tail.startswith(b"x") else head) + tail

    def endless(handler):  # without a length that could be refused
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)

    url = site.on("/endless", endless)
    assert ingest_urls([url], max_bytes=1_000_000).reason(url) == "too_large"


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_an_encoding_that_cannot_be_undone_is_named(site, ingest_urls, jpeg, encoding):
    url = site.serve("/odd", jpeg(1), Content_Encoding=encoding)
    assert ingest_urls([url]).reason(url) == "bad_encoding"


def test_a_page_instead_of_an_image_is_given_up_at_its_first_bytes(site, ingest_urls):
    sent: list[int] = []

    def page(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(2000):
            sent.append(handler.wfile.write(b"<html>this is no image</html>" * 1000))

    url = site.on("/page.jpg", page)
    assert ingest_urls([url]).reason(url) == "not_an_image"
    assert sum(sent) < 20_000_000


def test_an_empty_body_is_no_image(site, ingest_urls):
    url = site.serve("/empty", b"")
    assert ingest_urls([url]).reason(url) == "not_an_image"


def test_a_redirect_is_followed_and_a_loop_ends(site, ingest_urls, jpeg):
    site.serve("/good", jpeg(1))
    urls = [
        site.serve("/moved", b"", 301, Location="/good"),
        site.serve("/loop", b"", 302, Location="/loop"),
        site.serve("/nowhere", b"", 302),
    ]
    result = ingest_urls(urls, max_redirects=3)
    assert [result.reason(url) for url in urls] == ["", "too_many_redirects", "http_302"]
    assert site.asked["/loop"] == 4


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "bad_scheme"),
        ("s3://bucket/key", "bad_scheme"),
        ("ftp://example.com/a.jpg", "bad_scheme"),
        ("http://user:secret@127.0.0.1/", "bad_url"),
        ("http://[::1/", "bad_url"),
        ("http://exa mple.com/", "bad_url"),
    ],
)
def test_a_redirect_cannot_leave_the_web(site, ingest_urls, location, reason):
    url = site.serve("/moved", b"", 302, Location=location)
    assert ingest_urls([url], file_root="/", s3_buckets=["bucket"]).reason(url) == reason


def test_noai_is_respected_unless_told_otherwise(site, ingest_urls, jpeg):
    url = site.serve("/art.jpg", jpeg(1), X_Robots_Tag="noai")
    assert ingest_urls([url]).reason(url) == "noai"
    assert ingest_urls([url], into="forced", respect_noai=False).reason(url) == ""


@pytest.mark.parametrize(
    ("tags", "forbidden"),
    [
        ([], False),
        (["all"], False),
        (["noarchive, NoImageAI"], True),
        (["none", "noindex"], True),
        (["googlebot: noindex"], False),
        (["pixclip: noai"], True),
    ],
)
def test_robots_tags_are_read_for_everyone_and_for_us(tags, forbidden):
    assert forbids_ai(tags, "pixclip/0.1") is forbidden


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2001 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, pause_s):
    assert retry_after_s(header, now=10.0) == pause_s


@pytest.mark.parametrize("location", [b"http://[::1%\xff]/", b"http://\xff.test/"])
def test_a_redirect_that_is_no_text_cannot_break_the_manifest(site, ingest_urls, location):
    def redirect(handler):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n")
        handler.close_connection = True

    url = site.on("/away", redirect)
    assert ingest_urls([url]).reason(url) == "bad_url"


@given(st.text())
def test_any_text_is_a_url_or_a_named_failure(text):
    with suppress(FetchError):
        assert parse_web_url(text).scheme in {"http", "https"}


def test_a_signed_url_keeps_its_quoting(site, ingest_urls, jpeg):
    path = "/a%2Fb.jpg?sig=x%2By%3D&t=%7E"
    url = site.serve(path, jpeg(1))
    assert ingest_urls([url]).reason(url) == ""
    assert site.asked[path] == 1
