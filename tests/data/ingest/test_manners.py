"""Answers that every browser shows, however odd; and odd ones that stay refused, with a reason."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from components.data.ingest.failures import FetchError
from components.data.ingest.web import parse_web_url

OK = b"HTTP/1.1 200 OK\r\n"


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def plain(headers: bytes, status: bytes = b"200 OK") -> Callable[[bytes], bytes]:
    """An answer with these headers beside the length."""
    return lambda body: b"HTTP/1.1 " + status + b"\r\n" + headers + length(body) + b"\r\n" + body


def coded(header: bytes, code: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """An answer with a Content-Encoding."""
    return lambda body: plain(b"Content-Encoding: " + header + b"\r\n")(code(body))


def chunked(before: bytes, after: bytes, size: bytes = b"%x", end: bytes = b"0\r\n\r\n"):
    """An answer in chunks of 700 bytes; what stands before and after their sizes."""

    def answer(body: bytes) -> bytes:
        pieces = [body[start : start + 700] for start in range(0, len(body), 700)]
        chunks = [before + size % len(piece) + after + b"\r\n" + piece for piece in pieces]
        return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"\r\n".join([*chunks, end])

    return answer


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


ODD_ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    # Headers
    "a header of 60 kB": plain(b"Content-Security-Policy: " + b"https://x.test " * 4000 + b"\r\n"),
    "a hundred headers of a kB": plain(
        b"".join(b"X-%d: %s\r\n" % (n, b"y" * 999) for n in range(99))
    ),
    "many headers": plain(b"".join(b"X-%d: y\r\n" % number for number in range(500))),
    "a blank in a header's name": plain(b"X Odd: 1\r\n"),
    "a line without a colon": plain(b"this is no header\r\n"),
    "a header without a name": plain(b": 1\r\n"),
    "a folded header": plain(b"X-Long: one\r\n two\r\n"),
    "bytes that are no text": plain(b"Set-Cookie: a=\xe9\xff\x01; path=/\r\nX-\xe9: 1\r\n"),
    "a blank before the colon": plain(b"Server : odd\r\n"),
    "no content type": plain(b""),
    "a page's content type": plain(b"Content-Type: text/html; charset=utf-8\r\n"),
    "an empty content type": plain(b"Content-Type:\r\n"),
    "bare line feeds": lambda body: b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(body) + body,
    "no reason": lambda body: b"HTTP/1.1 200\r\n" + length(body) + b"\r\n" + body,
    "early hints": lambda body: (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plain(b"")(body)
    ),
    "another version": lambda body: b"HTTP/1.5 200 OK\r\n" + length(body) + b"\r\n" + body,
    # Lengths
    "the length twice": lambda body: plain(length(body))(body),
    "two lengths": lambda body: plain(b"Content-Length: 5\r\n")(body),
    "a length that is no number": lambda body: OK + b"Content-Length: many\r\n\r\n" + body,
    "a negative length": lambda body: OK + b"Content-Length: -1\r\n\r\n" + body,
    "a length with a unit": lambda body: OK + b"Content-Length: 9 bytes\r\n\r\n" + body,
    "more promised than sent": lambda body: OK + b"Content-Length: 99999\r\n\r\n" + body,
    "until the end of the connection": lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body,
    # Chunks
    "chunks": chunked(b"", b""),
    "chunks in capitals": chunked(b"", b"", b"%X"),
    "chunks with leading zeros": chunked(b"000", b""),
    "chunks with extensions": chunked(b"", b';name="value"'),
    "chunks with blanks": chunked(b"", b"   "),
    "chunks with trailers": chunked(b"", b"", end=b"0\r\nX-Sum: 1\r\n\r\n"),
    "chunks without an end": chunked(b"", b"", end=b""),
    "chunks and a length": lambda body: chunked(b"", b"")(body).replace(
        OK, OK + b"Content-Length: 17\r\n"
    ),
    # Codings
    "a coding called none": coded(b"none", bytes),
    "a coding called identity": coded(b"identity", bytes),
    "a charset as coding": coded(b"UTF-8", bytes),
    "another charset as coding": coded(b"iso-8859-1", bytes),
    "a coding called binary": coded(b"binary", bytes),
    "a type as coding": coded(b"image/jpeg", bytes),
    "an empty coding": coded(b"", bytes),
    "gzip, not asked for": coded(b"gzip", gzip.compress),
    "gzip in capitals": coded(b"GZIP", gzip.compress),
    "gzip among others": coded(b"identity, gzip, utf-8", gzip.compress),
    "gzip twice": coded(b"gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    "gzip in two headers": lambda body: plain(
        b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"
    )(gzip.compress(gzip.compress(body))),
    "deflate and gzip": coded(b"deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "deflate": coded(b"deflate", zlib.compress),
    "bare deflate": coded(b"deflate", bare_deflate),
    # Statuses
    "created": plain(b"", b"201 Created"),
    "accepted": plain(b"", b"202 Accepted"),
    "from elsewhere": plain(b"", b"203 Non-Authoritative Information"),
    "used": plain(b"", b"226 IM Used"),
    "fine": plain(b"", b"218 This is fine"),
    "a status of its own": plain(b"", b"299 Odd"),
    "the whole as a part": lambda body: plain(
        b"Content-Range: bytes 0-%d/%d\r\n" % (len(body) - 1, len(body)), b"206 Partial Content"
    )(body),
}


def raw(answer: bytes):
    """A handler that sends these bytes and hangs up."""

    def run(handler):
        handler.wfile.write(answer)
        handler.close_connection = True

    return run


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_answer_that_browsers_show_gives_its_image(site, ingest_urls, jpeg, name):
    url = site.on("/odd.jpg", raw(ODD_ANSWERS[name](jpeg(1))))
    row = ingest_urls([url], retries=0).rows[url]
    assert (row["reason"], row["detail"]) == ("", "")
    assert row["num_bytes"] == len(jpeg(1))


REFUSED_ANSWERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no http": (lambda body: b"SSH-2.0-OpenSSH\r\n\r\n", "bad_response"),
    "nothing but an image": (bytes, "bad_response"),
    "headers without end": (lambda body: OK + b"X: y\r\n" * 100_000, "bad_response"),
    "one line without end": (lambda body: OK + b"X: " + b"y" * 3_000_000, "bad_response"),
    "a part of the image": (
        plain(b"Content-Range: bytes 0-99/5000\r\n", b"206 Partial Content"),
        "http_206",
    ),
    "a part that is not told": (plain(b"", b"206 Partial Content"), "http_206"),
    "no content": (plain(b"", b"204 No Content"), "http_204"),
    "not modified": (plain(b"", b"304 Not Modified"), "http_304"),
    "a picture beside a failure": (plain(b"", b"404 Not Found"), "http_404"),
    "a coding nobody asked for": (coded(b"br", bytes), "bad_encoding"),
    "many codings": (coded(b"gzip, gzip, gzip, gzip, gzip", gzip.compress), "bad_encoding"),
    "half of what was promised": (
        lambda body: plain(b"")(body)[: -len(body) // 2],
        "connection_broken",
    ),
    "half of the chunks": (
        lambda body: chunked(b"", b"", end=b"")(body[: len(body) // 2]),
        "connection_broken",
    ),
}


@pytest.mark.parametrize("name", REFUSED_ANSWERS)
def test_an_answer_that_nobody_can_read_is_refused_with_its_reason(site, ingest_urls, jpeg, name):
    make, reason = REFUSED_ANSWERS[name]
    url = site.on("/odd.jpg", raw(make(jpeg(1))))
    assert ingest_urls([url], retries=0).reason(url) == reason


@pytest.mark.parametrize(
    "layers", [b"gzip", b"gzip, gzip", b"gzip, gzip, gzip"], ids=["one", "two", "three"]
)
def test_a_bomb_of_many_layers_is_not_unpacked_past_the_limit(site, ingest_urls, jpeg, layers):
    bomb = jpeg(1) + bytes(30_000_000)
    for _ in layers.split(b","):
        bomb = gzip.compress(bomb, 1)
    url = site.on("/bomb", raw(plain(b"Content-Encoding: " + layers + b"\r\n")(bomb)))
    assert ingest_urls([url], max_bytes=500_000).reason(url) == "too_large"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(site, ingest_urls, jpeg, status):
    site.serve("/final.jpg", jpeg(1))
    url = site.serve("/moved", b"", status, Location="/final.jpg")
    assert ingest_urls([url]).reason(url) == ""


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/final place.jpg", "/final%20place.jpg"),
        (b"  /around.jpg \t", "/around.jpg"),
        (b"/half%20done here%.jpg", "/half%20done%20here%.jpg"),
        ("/photos/café.jpg".encode(), "/photos/caf%C3%A9.jpg"),
        ("/photos/café.jpg".encode("latin-1"), "/photos/caf%E9.jpg"),
        (b'/"quoted"<odd>.jpg', "/%22quoted%22%3Codd%3E.jpg"),
        (b"/list[1]|a.jpg?x={y} z&q=a+b", "/list[1]|a.jpg?x=%7By%7D%20z&q=a+b"),
        (b"near.jpg", "/folder/near.jpg"),
        (b"../up.jpg", "/up.jpg"),
        (b"./a/./b/../c.jpg", "/folder/a/c.jpg"),
        (b"?query only", "/folder/odd.jpg?query%20only"),
        (b"/with.jpg#fragment here", "/with.jpg"),
        (b"\\back\\slashes.jpg", "/back/slashes.jpg"),
        (b"//127.0.0.1:{port}/same scheme.jpg", "/same%20scheme.jpg"),
        (b"HTTP://127.0.0.1:{port}/CAPITALS.jpg", "/CAPITALS.jpg"),
        (b"http:\\\\127.0.0.1:{port}\\slashes.jpg", "/slashes.jpg"),
        (b"http:/127.0.0.1:{port}/one slash.jpg", "/one%20slash.jpg"),
        (b"http://127.0.0.1:{port}", "/"),
        (b"http://127.0.0.1:{port}?a", "/?a"),
    ],
)
def test_a_redirect_is_followed_as_it_was_meant(site, ingest_urls, jpeg, location, asked):
    target = location.replace(b"{port}", str(site.port).encode())
    site.serve(asked, jpeg(1))
    url = site.on(
        "/folder/odd.jpg",
        raw(b"HTTP/1.1 302 X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target),
    )
    result = ingest_urls([url], retries=0)
    assert (result.reason(url), dict(site.asked)) == ("", {"/folder/odd.jpg": 1, asked: 1})


def test_a_site_that_wants_its_cookie_back_gets_it_and_no_other_does(site, ingest_urls, jpeg):
    def wall(handler):
        if "seen=yes" in handler.headers.get("Cookie", ""):
            handler.wfile.write(plain(b"")(jpeg(1)))
        else:
            cookies = (
                b"Set-Cookie: seen=yes; Path=/\r\nSet-Cookie: odd\r\nSet-Cookie: \xff=\x01\r\n"
            )
            handler.wfile.write(
                b"HTTP/1.1 302 X\r\nLocation: /wall.jpg\r\nContent-Length: 0\r\n"
                + cookies
                + b"\r\n"
            )
        handler.close_connection = True

    url, other = site.on("/wall.jpg", wall), site.serve("/other.jpg", jpeg(2))
    assert ingest_urls([url, other], concurrency=1).metrics["urls_ok"] == 2
    assert "Cookie" not in site.requests[-1]
    site.serve("/leak.jpg", b"", 302, Set_Cookie="a=b", Location=site.url("/x.jpg", "two.test"))
    site.serve("/x.jpg", jpeg(1))

    class Local:
        async def addresses(self, host):
            return ["127.0.0.1"]

    hosts = ["127.0.0.1", "two.test"]
    result = ingest_urls([site.url("/leak.jpg")], "leak", Local(), allowed_hosts=hosts)
    assert result.metrics["urls_ok"] == 1
    assert "Cookie" not in site.requests[-1]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTPS://Example.COM/A%2fb", "https://example.com/A%2fb"),
        (" http://x.test/a b\n", "http://x.test/a%20b"),
        ("http://x.test/a\tb\r\nc", "http://x.test/abc"),
        ("http://bücher.test/é?ü=ß", "http://xn--bcher-kva.test/%C3%A9?%C3%BC=%C3%9F"),
        ("http://x.test:8080/%zz%", "http://x.test:8080/%zz%"),
        ("http:///x.test/a", "http://x.test/a"),
        ("http://x.test/a?b#c d", "http://x.test/a?b#c%20d"),
        ("http://x.test/\x01\x7f", "http://x.test/%01%7F"),
    ],
)
def test_a_url_is_read_as_it_was_meant(text, url):
    assert str(parse_web_url(text)) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad_url"),
        ("   ", "bad_url"),
        ("x.test/a.jpg", "bad_scheme"),
        ("//x.test/a.jpg", "bad_scheme"),
        ("javascript:alert(1)", "bad_scheme"),
        ("data:image/png;base64,AAAA", "bad_scheme"),
        ("http://", "bad_url"),
        ("http://user:secret@x.test/", "bad_url"),
        ("http://user@x.test/", "bad_url"),
        ("http://x y.test/", "bad_url"),
        ("http://x.test:99999/", "bad_url"),
        ("http://x.test:port/", "bad_url"),
        ("http://[::1/", "bad_url"),
        ("http://x.test/\ud800", "bad_url"),
        ("http://\ud800.test/", "bad_url"),
        ("http://%31%32%37.0.0.1/", "bad_url"),
    ],
)
def test_what_is_no_web_address_is_named(text, reason):
    with pytest.raises(FetchError) as caught:
        parse_web_url(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "location",
    [
        b"http://127.0.0.2:{port}/secret.jpg",
        b"//127.0.0.2:{port}/secret.jpg",
        b"\\\\127.0.0.2:{port}\\secret.jpg",
        b"http:\\\\127.0.0.2:{port}/secret.jpg",
        b"http:/127.0.0.2:{port}/secret.jpg",
        b"http:///127.0.0.2:{port}/secret.jpg",
        b"http://127.0.0.1:{port}@127.0.0.2:{port}/secret.jpg",
        b"http://127.0.0.2:{port}\\@127.0.0.1:{port}/secret.jpg",
        b"ht\ttp://127.0.0.\t2:{port}/secret.jpg",
        "http://１２７.0.0.2:{port}/secret.jpg".encode(),
        b"http://[::ffff:127.0.0.2]:{port}/secret.jpg",
        b"http://2130706434:{port}/secret.jpg",
        b"http://0x7f.2:{port}/secret.jpg",
        b"http://127.0.0.2.:{port}/secret.jpg",
    ],
)
def test_no_odd_spelling_leads_to_a_private_address(site, ingest_urls, jpeg, location):
    site.serve("/secret.jpg", jpeg(1))
    target = location.replace(b"{port}", str(site.port).encode())
    odd = b"HTTP/1.1 302 X\r\nOdd Header: 1\r\nLocation: " + target + b"\r\n\r\n"
    for path, answer in (("/a", odd.replace(b"Odd Header: 1\r\n", b"")), ("/b", odd)):
        url = site.on(path, raw(answer))
        reason = ingest_urls([url], path[1:], retries=0).reason(url)
        assert reason in {"private_address", "bad_url", "bad_scheme", "dns_failure"}
    assert not site.asked["/secret.jpg"]
