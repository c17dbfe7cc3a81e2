import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.data.ingest.failures import FetchError, WorldError
from components.data.ingest.files import failure_of, parse_s3_url, require_open_buckets


@pytest.fixture
def bucket(s3_endpoint, jpeg):
    """A real server with an image, a page and a huge object; gives its endpoint."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for name in ("pictures", "private"):
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="a b/ä%20.jpg", Body=jpeg(1))
    client.put_object(Bucket="pictures", Key="page.jpg", Body=b"<html>this is no image</html>")
    client.put_object(Bucket="pictures", Key="huge.jpg", Body=jpeg(1) + bytes(1_000_000))
    return s3_endpoint


def test_objects_are_fetched_and_failures_are_named(bucket, ingest_urls, jpeg):
    reasons = {
        "s3://pictures/a b/ä%20.jpg": "",
        "s3://pictures/missing.jpg": "s3_missing",
        "s3://gone/a.jpg": "s3_missing",
        "s3://private/a b/ä%20.jpg": "s3_not_allowed",
        "s3://pictures/page.jpg": "not_an_image",
        "s3://pictures/huge.jpg": "too_large",
        "s3://pictures": "bad_url",
    }
    buckets = ["pictures", "gone"]
    result = ingest_urls(list(reasons), s3_endpoint=bucket, s3_buckets=buckets, max_bytes=500_000)
    assert {url: result.reason(url) for url in reasons} == reasons
    assert result.rows["s3://pictures/a b/ä%20.jpg"]["num_bytes"] == len(jpeg(1))


def test_a_store_that_is_gone_stops_the_step_and_is_asked_again(bucket, ingest_urls):
    url, settings = "s3://pictures/a b/ä%20.jpg", {"s3_buckets": ["pictures"]}
    with pytest.raises(WorldError, match=r"bucket pictures cannot be read.*s3_unreachable"):
        ingest_urls([url], s3_endpoint="http://127.0.0.1:9", **settings)
    assert ingest_urls([url], s3_endpoint=bucket, **settings).reason(url) == ""


@pytest.fixture
def metadata_server():
    """Where a cloud would give credentials; counts who asks."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_PUT

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def no_credentials(monkeypatch, tmp_path, metadata_server):
    """A machine in a cloud on which nobody has set anything up."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_server[0])
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return metadata_server[1]


def test_an_s3_url_that_is_refused_asks_nobody_for_credentials(
    no_credentials, site, ingest_urls, jpeg
):
    urls = [site.serve("/a.jpg", jpeg(1)), "s3://pictures/a.jpg", "s3://", "S3://other/b.jpg"]
    result = ingest_urls(urls, s3_buckets=["mine"])
    assert [result.reason(url) for url in urls] == [
        "", "s3_not_allowed", "bad_url", "s3_not_allowed",
    ]  # fmt: skip
    assert not no_credentials


def test_missing_credentials_stop_the_step_with_that_reason(
    s3_endpoint, no_credentials, ingest_urls
):
    with pytest.raises(WorldError, match="Unable to locate credentials"):
        ingest_urls(["s3://pictures/a.jpg"], s3_endpoint=s3_endpoint, s3_buckets=["pictures"])
    assert no_credentials  # an allowed bucket may be read with the machine's role


def test_broken_configuration_stops_the_step_with_that_reason(
    s3_endpoint, no_credentials, ingest_urls, monkeypatch
):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(WorldError, match="nobody"):
        ingest_urls(["s3://pictures/a.jpg"], s3_endpoint=s3_endpoint, s3_buckets=["pictures"])
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(WorldError, match="no-url"):
        ingest_urls(["s3://pictures/a.jpg"], s3_endpoint="no-url", s3_buckets=["pictures"])


@pytest.mark.parametrize(
    ("code", "status", "reason", "is_transient"),
    [
        ("NoSuchKey", 404, "s3_missing", False),
        ("AccessDenied", 403, "s3_denied", False),
        ("KeyTooLongError", 400, "s3_error", False),
        ("InvalidObjectState", 403, "s3_error", False),
        ("SlowDown", 503, "s3_error", True),
        ("InternalError", 500, "s3_error", True),
    ],
)
def test_what_a_store_answers_about_an_object_is_the_objects(code, status, reason, is_transient):
    failure = failure_of_answer(code, status)
    assert isinstance(failure, FetchError)
    assert (failure.reason, failure.is_transient) == (reason, is_transient)


@pytest.mark.parametrize(
    "code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "RequestTimeTooSkewed"]
)
def test_what_a_store_answers_about_who_asks_stops_the_step(code):
    assert code in str(failure_of_answer(code, 403))
    assert isinstance(failure_of_answer(code, 403), WorldError)


def failure_of_answer(code, status):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return failure_of(answer, "pictures")


def test_a_bucket_that_refuses_every_object_is_a_fault_of_the_world():
    require_open_buckets([("s3://b/1", "s3_denied"), ("s3://b/2", ""), ("http://x/", "timeout")])
    require_open_buckets([("s3://b/1", "s3_denied"), ("s3://b/2", "s3_missing")])
    with pytest.raises(WorldError, match="bucket b cannot be read"):
        require_open_buckets([("s3://b/1", "s3_denied"), ("s3://b/2", "s3_unreachable")])


def test_without_named_buckets_every_s3_url_is_refused():
    with pytest.raises(FetchError, match="s3_not_allowed"):
        parse_s3_url("s3://pictures/a.jpg", ())


def test_a_key_is_taken_as_it_is():
    assert parse_s3_url("s3://b/x?y#z/%20.jpg", ("b",)) == ("b", "x?y#z/%20.jpg")


def test_wrong_credentials_stop_the_step_and_the_right_ones_go_on(
    bucket, site, ingest_urls, jpeg, monkeypatch
):
    urls = [site.serve("/a.jpg", jpeg(2)), "s3://pictures/a b/ä%20.jpg"]
    settings = {"s3_endpoint": bucket, "s3_buckets": ["pictures"]}
    with monkeypatch.context() as wrong:
        wrong.setattr("boto3.DEFAULT_SESSION", None)
        wrong.setenv("AWS_ACCESS_KEY_ID", "somebody")
        with pytest.raises(WorldError, match=r"bucket pictures cannot be read.*InvalidAccessKeyId"):
            ingest_urls(urls, concurrency=1, **settings)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    assert ingest_urls(urls, **settings).metrics["urls_ok"] == 2
    assert site.asked["/a.jpg"] == 1
