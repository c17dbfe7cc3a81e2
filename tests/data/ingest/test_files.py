import hashlib
import os

import pytest

from components.core.errors import GateError

SECRET = b"\xff\xd8\xff the bytes of a secret"


@pytest.fixture
def root(tmp_path, jpeg):
    """A folder `root` with an image, and secrets around it."""
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a b.jpg").write_bytes(jpeg(1))
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "inner.jpg").symlink_to(root / "images" / "a b.jpg")
    (root / "out").symlink_to(tmp_path)
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///images/a%20b.jpg", ""),
        ("file://localhost/images/a%20b.jpg", ""),
        ("file:///inner.jpg", ""),
        ("file:///images/missing.jpg", "file_missing"),
        ("file:///images/a%00.jpg", "file_missing"),
        ("file:///loop.jpg", "file_missing"),
        ("file:///images", "file_not_allowed"),
        ("file:///pipe.jpg", "file_not_allowed"),
        ("file:///../secret.jpg", "file_not_allowed"),
        ("file:///%2e%2e/secret.jpg", "file_not_allowed"),
        ("file:///images/../../secret.jpg", "file_not_allowed"),
        ("file:///link.jpg", "file_not_allowed"),
        ("file:///out/secret.jpg", "file_not_allowed"),
        ("file://elsewhere/images/a%20b.jpg", "file_not_allowed"),
        ("file:////etc/passwd", "file_missing"),
        ("ftp://example.com/a.jpg", "bad_scheme"),
        ("images/a b.jpg", "bad_scheme"),
        ("data:image/png;base64,xx", "bad_scheme"),
        ("http://[", "bad_url"),
    ],
)
def test_a_file_url_stays_inside_its_root(root, ingest_urls, url, reason):
    assert ingest_urls([url], file_root=str(root)).reason(url) == reason


def test_without_a_root_every_file_url_is_refused(root, ingest_urls):
    url = "file:///images/a%20b.jpg"
    assert ingest_urls([url]).reason(url) == "file_not_allowed"


def test_a_file_over_the_limit_is_refused(root, ingest_urls):
    url = "file:///images/a%20b.jpg"
    assert ingest_urls([url], file_root=str(root), max_bytes=100).reason(url) == "too_large"


def test_a_corrected_root_is_used_on_the_draft_of_a_wrong_one(root, ingest_urls):
    url = "file:///images/a%20b.jpg"
    for wrong in ("", str(root / "images")):
        with pytest.raises(GateError, match=r"Set ingest\.file_root"):
            ingest_urls([url], file_root=wrong, min_success_rate=1)
    assert ingest_urls([url], file_root=str(root), min_success_rate=1).reason(url) == ""


def promised(path, data):
    return f"file:///{path}#sha256={hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def linked(tmp_path, jpeg):
    """A root with links to a picture and to a folder outside."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.jpg").write_bytes(jpeg(1))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.jpg").symlink_to(tmp_path / "store" / "a.jpg")
    (root / "folder").symlink_to(tmp_path / "store")
    return root


@pytest.mark.parametrize("path", ["link.jpg", "folder/a.jpg"])
def test_a_link_that_leads_out_is_followed_for_whom_has_read_what_is_behind_it(
    linked, ingest_urls, jpeg, path
):
    known, unknown = promised(path, jpeg(1)), f"file:///{path}"
    result = ingest_urls([known, unknown], file_root=str(linked), min_success_rate=0)
    assert (result.reason(known), result.reason(unknown)) == ("", "file_not_allowed")
    assert "import_coco" in result.rows[unknown]["detail"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("link.jpg", "file_not_allowed"),
        ("../store/a.jpg", "file_not_allowed"),
        ("%2e%2e/store/a.jpg", "file_not_allowed"),
        ("folder/../../store/a.jpg", "file_not_allowed"),
    ],
)
def test_a_wrong_promise_or_a_way_up_opens_nothing(linked, ingest_urls, jpeg, path, reason):
    data = b"a guess" if path == "link.jpg" else jpeg(1)
    url = promised(path, data)
    assert ingest_urls([url], file_root=str(linked), min_success_rate=0).reason(url) == reason


def test_a_file_that_changed_since_its_import_is_told(root, ingest_urls):
    url = promised("images/a%20b.jpg", b"another picture")
    result = ingest_urls([url], file_root=str(root), min_success_rate=0)
    assert result.reason(url) == "file_changed"
    assert "import the source again" in result.rows[url]["detail"]


def test_a_loop_of_links_is_called_one(root, ingest_urls):
    result = ingest_urls(["file:///loop.jpg"], file_root=str(root), min_success_rate=0)
    assert "loop" in result.rows["file:///loop.jpg"]["detail"]


def test_a_name_that_is_no_utf8_is_found(root, ingest_urls, jpeg):
    with open(os.fsencode(root) + b"/caf\xe9.jpg", "wb") as file:
        file.write(jpeg(2))
    url = "file:///caf%E9.jpg"
    assert ingest_urls([url], file_root=str(root)).reason(url) == ""
