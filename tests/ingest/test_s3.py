import pytest

from components.ingest.failures import FetchError
from components.ingest.s3 import parse_s3_url


@pytest.fixture
def bucket(s3_endpoint, jpeg):
    """A real server with an image, a page and a huge object; gives its endpoint."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for name in ("pictures", "private"):
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


def test_a_server_that_is_gone_is_a_transient_failure(s3_endpoint, ingest_urls):
    url = "s3://pictures/a.jpg"
    settings = {"s3_endpoint": "http://127.0.0.1:9", "s3_buckets": ["pictures"]}
    assert ingest_urls([url], **settings).reason(url) == "s3_unreachable"


def test_without_named_buckets_every_s3_url_is_refused():
    with pytest.raises(FetchError, match="s3_not_allowed"):
        parse_s3_url("s3://pictures/a.jpg", ())


def test_a_key_is_taken_as_it_is():
    assert parse_s3_url("s3://b/x?y#z/%20.jpg", ("b",)) == ("b", "x?y#z/%20.jpg")
