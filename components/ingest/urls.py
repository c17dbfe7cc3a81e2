"""URLs as people and servers write them, read as browsers read them (https://url.spec.whatwg.org)."""

import re
from urllib.parse import quote

from yarl import URL

from components.ingest.failures import FetchError
from data_contracts.reasons import IngestReason

LEFT_OUT = str.maketrans("", "", "\t\r\n")
AROUND = "".join(map(chr, range(0x21)))  # blanks and control characters
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
WEB_SCHEMES = frozenset({"http", "https"})
# What stays as it is: a signed URL breaks when its quoting is changed, be it odd or half done.
AS_WRITTEN = "!#$%&'()*+,/:;=?@[]~|^"
BAD_IN_HOST = re.compile(r"[\x00-\x20\x7f%<>^`{|}\"\ud800-\udfff]")


def parse_web_url(text: str, base: URL | None = None) -> URL:
    """An absolute http(s) URL without credentials; `base` is where a redirect came from.

    Bytes of a Location header that are no text are the surrogates of `surrogateescape`.

    Raises:
        FetchError: `bad_url`, `bad_scheme`.
    """
    scheme, host, rest = _parts(text, base)
    try:
        if host is None:
            assert base is not None
            url = base.join(URL(rest, encoded=True))
        else:
            url = URL(f"{scheme}://{host}", encoded=host.isascii())
            # A host that is no ASCII is made so; the rest stays as it was written.
            url = URL(f"{scheme}://{url.raw_authority}{rest}", encoded=True)
        is_complete = bool(url.host and url.port)
    except (ValueError, UnicodeError) as error:
        raise FetchError(IngestReason.BAD_URL, str(error)) from None
    if not is_complete or url.user or url.password:
        raise FetchError(IngestReason.BAD_URL, "the URL needs a host and no credentials")
    return url


def _parts(text: str, base: URL | None) -> tuple[str, str | None, str]:
    """Scheme, authority (None: that of the base) and the rest, quoted where it has to be."""
    text = text.translate(LEFT_OUT).strip(AROUND)
    if not text:
        raise FetchError(IngestReason.BAD_URL, "the URL is empty")
    found = SCHEME.match(text)
    if not found and base is None:
        raise FetchError(IngestReason.BAD_SCHEME, "the URL names no scheme")
    scheme = (found[1] if found else base.scheme if base else "").lower()
    if scheme not in WEB_SCHEMES:
        raise FetchError(IngestReason.BAD_SCHEME, f"scheme {scheme[:20]!r}")
    rest = text[found.end() :] if found else text
    end = next((place for place, letter in enumerate(rest) if letter in "?#"), len(rest))
    path, query = rest[:end].replace("\\", "/"), rest[end:]
    if not found and not path.startswith("//"):
        return scheme, None, _quoted(path + query)
    host, slash, path = path.lstrip("/").partition("/")
    if not host or BAD_IN_HOST.search(host):
        raise FetchError(
            IngestReason.BAD_URL, "the URL's host holds blanks or characters that no host has"
        )
    return scheme, host.lower(), _quoted(slash + path + query)


def _quoted(text: str) -> str:
    """Only what cannot be sent is quoted: blanks, quotes, control characters, all but ASCII."""
    try:
        return quote(text.encode("utf-8", "surrogateescape"), safe=AS_WRITTEN)
    except UnicodeError:
        raise FetchError(IngestReason.BAD_URL, "the URL holds half of a character") from None
