"""S3 stores that change, answer oddly, or are none."""

import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from components.core.errors import InputError
from components.core.s3 import S3Object, S3Store

BODY = bytes(range(256)) * 40
LISTING = """<?xml version="1.0"?><ListBucketResult><IsTruncated>{more}</IsTruncated>{token}
{contents}</ListBucketResult>"""
ENTRY = "<Contents><Key>{key}</Key><Size>{size}</Size>{etag}</Contents>"
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def odd_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Starts a server that answers every request by a function of its path and headers."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, dict[str, str]], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = answer(self.path, dict(self.headers.items()))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def bring(endpoint: str, target: Path, etag: str = '"one"') -> bytes:
    for _ in S3Store(endpoint).download(S3Object("b", "k", len(BODY), etag), target):
        pass
    return target.read_bytes()


def begun(target: Path, content: bytes) -> None:
    target.with_name(f".{target.name}.one.partial").write_bytes(content)


def test_an_object_that_is_replaced_while_it_is_fetched_is_told_and_comes_whole_next_time(
    tmp_path: Path, s3_endpoint: str
) -> None:
    bucket = f"changing-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="d/k", Body=b"old")
    store = S3Store(s3_endpoint)
    (old,) = store.list_objects(f"s3://{bucket}/d")
    client.put_object(Bucket=bucket, Key="d/k", Body=b"new")
    with pytest.raises(InputError, match=rf"s3://{bucket}/d/k.*replaced.*run the step again"):
        list(store.download(old, tmp_path / "k"))
    (new,) = store.list_objects(f"s3://{bucket}/d")
    assert new.etag != old.etag
    list(store.download(new, tmp_path / "k"))
    assert (tmp_path / "k").read_bytes() == b"new"
    client.delete_object(Bucket=bucket, Key="d/k")
    with pytest.raises(InputError, match="it is gone since it was listed"):
        list(store.download(new, tmp_path / "again"))


def test_a_store_that_knows_no_ranges_is_read_from_the_start(
    tmp_path: Path, odd_store: Callable[..., str]
) -> None:
    begun(tmp_path / "k", b"the first bytes of an earlier attempt")
    endpoint = odd_store(lambda path, headers: (200, {"ETag": '"one"'}, BODY))
    assert bring(endpoint, tmp_path / "k") == BODY


def test_a_store_that_knows_no_conditions_cannot_mix_two_versions(
    tmp_path: Path, odd_store: Callable[..., str]
) -> None:
    begun(tmp_path / "k", BODY[:100])
    rest = {"ETag": '"two"', "Content-Range": f"bytes 100-{len(BODY) - 1}/{len(BODY)}"}
    endpoint = odd_store(lambda path, headers: (206, rest, BODY[100:]))
    with pytest.raises(InputError, match="replaced while it was read"):
        bring(endpoint, tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_another_range_than_asked_for_is_not_appended(
    tmp_path: Path, odd_store: Callable[..., str]
) -> None:
    begun(tmp_path / "k", BODY[:100])
    other = {"ETag": '"one"', "Content-Range": f"bytes 50-{len(BODY) - 1}/{len(BODY)}"}
    endpoint = odd_store(lambda path, headers: (206, other, BODY[50:]))
    with pytest.raises(InputError, match="replaced while it was read"):
        bring(endpoint, tmp_path / "k")


@pytest.mark.parametrize("length", [0, 50, len(BODY) - 1])
def test_an_answer_that_ends_too_early_leaves_no_file(
    tmp_path: Path, odd_store: Callable[..., str], length: int
) -> None:
    headers = {"ETag": '"one"', "Content-Length": str(len(BODY))}
    endpoint = odd_store(lambda path, _: (200, headers, BODY[:length]))
    with pytest.raises(InputError, match="s3://b/k"):
        bring(endpoint, tmp_path / "k")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {}, b"<html>Welcome to nginx!</html"), "does not speak S3"),
        ((200, {}, b"{}"), "does not speak S3"),
        ((403, {}, b"<Error><Code>AccessDenied</Code></Error>"), "credentials may not do that"),
        ((403, {}, b"<Error><Code>InvalidAccessKeyId</Code></Error>"), "look at endpoint_url"),
        ((404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"), "no such bucket"),
        ((403, {}, b"<Error><Code>ExpiredToken</Code></Error>"), "get new credentials"),
        ((500, {}, b"oops"), "500"),
        ((307, {"Location": "http://127.0.0.1:9/"}, b""), "cannot read s3://b/d"),
    ],
)
def test_what_answers_otherwise_is_told_with_advice(
    odd_store: Callable[..., str], answer: Answer, message: str
) -> None:
    endpoint = odd_store(lambda path, headers: answer)
    with pytest.raises(InputError, match=message):
        S3Store(endpoint).list_objects("s3://b/d")


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "http://", "ftp://a b", "http://127.0.0.1:1", "http://[::1"]
)
def test_an_address_that_is_no_store_is_told(odd_store: Callable[..., str], endpoint: str) -> None:
    with pytest.raises(InputError, match=r"cannot (use the S3 store|read s3://b/d)"):
        S3Store(endpoint).list_objects("s3://b/d")


def test_a_listing_that_changes_between_its_pages_names_no_object_twice(
    odd_store: Callable[..., str],
) -> None:
    def answer(path: str, headers: dict[str, str]) -> Answer:
        is_second = "continuation-token" in path
        keys = [("d/a", 1, "1"), ("d/b", 2, "2")]
        if is_second:
            keys = [("d/b", 3, "3"), ("d/c", 4, "4")]
        contents = "".join(
            ENTRY.format(key=key, size=size, etag=f"<ETag>{etag}</ETag>")
            for key, size, etag in keys
        )
        token = "" if is_second else "<NextContinuationToken>t</NextContinuationToken>"
        more = "false" if is_second else "true"
        return 200, {}, LISTING.format(more=more, token=token, contents=contents).encode()

    found = S3Store(odd_store(answer)).list_objects("s3://b/d")
    assert [(item.key, item.num_bytes) for item in found] == [("d/a", 1), ("d/b", 3), ("d/c", 4)]


def test_objects_whose_changes_cannot_be_told_are_refused(odd_store: Callable[..., str]) -> None:
    contents = ENTRY.format(key="d/a", size=1, etag="")
    body = LISTING.format(more="false", token="", contents=contents).encode()
    with pytest.raises(InputError, match="gives no ETag for s3://b/d"):
        S3Store(odd_store(lambda path, headers: (200, {}, body))).list_objects("s3://b/d")
