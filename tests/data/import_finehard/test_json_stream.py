"""A JSON list is read entry by entry, the same as all at once, in memory that does not grow."""

import gzip
import io
import json
import tracemalloc

import pytest

from components.core.errors import InputError
from components.data.formats import json_stream
from components.data.formats.json_stream import stream_entries
from tests.finehard_source import draw, entry_of


def read(content: bytes) -> list:
    return list(stream_entries(io.BytesIO(content), "a.json"))


ENTRIES = [
    {"text": 'quotes " brackets ][}{ and \\ \n', "numbers": [1, -2.5e-3, 0]},
    {"text": "Äpfel, 苹果, 🍎", "nested": {"a": [{"b": None}]}},
    12345,
    "only a text",
    [],
    {},
    True,
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_are_those_of_the_whole_list_however_the_file_is_cut(monkeypatch, piece, indent):
    monkeypatch.setattr(json_stream, "PIECE_CHARS", piece)
    content = json.dumps(ENTRIES, ensure_ascii=False, indent=indent).encode()
    assert read(content) == ENTRIES
    assert read(b"\xef\xbb\xbf \n" + content + b" \n ") == ENTRIES
    lines = "".join(f"{json.dumps(entry)}\n" for entry in ENTRIES if isinstance(entry, dict))
    assert read(lines.encode()) == [entry for entry in ENTRIES if isinstance(entry, dict)]
    assert read(b"[]") == read(b"") == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"a": 1}, {"a": 2}', "ends early, after entry 1"),
        (b'[{"a": 1}, {"a": ', "entry 1 is no JSON, or the file ends early"),
        (b'[{"a": 1} {"a": 2}]', "no comma after entry 0"),
        (b'[{"a": 1}, what]', "entry 1 is no JSON"),
        (b'[{"a": 1},]', "entry 1 is no JSON"),
        (b'[{"a": 1}] {"a": 2}', "more after the end"),
        (b"\x00\x01\x02", "entry 0 is no JSON"),
        (b"[" * 100_000, "entry 0 is too deep"),
    ],
)
def test_what_is_no_list_is_refused_with_the_entry(content, told):
    with pytest.raises(InputError, match=rf"^a\.json:? (there is )?{told}"):
        read(content)


def test_stray_bytes_spoil_their_own_text_only():
    first, second = read(b'[{"a": "caf\xe9"}, {"a": "b"}]')
    assert first["a"].startswith("caf")
    assert second == {"a": "b"}


def test_an_entry_larger_than_any_ends_the_reading(monkeypatch):
    monkeypatch.setattr(json_stream, "PIECE_CHARS", 16)
    monkeypatch.setattr(json_stream, "MAX_ENTRY_CHARS", 1000)
    with pytest.raises(InputError, match="entry 0 is no JSON"):
        read(b'[{"a": "' + b"x" * 100_000)


def test_a_damaged_gzip_is_an_error_of_the_input():
    content = gzip.compress(json.dumps(ENTRIES * 1000).encode())[:-200]
    with (
        gzip.open(io.BytesIO(content)) as file,
        pytest.raises(InputError, match=r"a\.json\.gz cannot be read"),
    ):
        list(stream_entries(file, "a.json.gz"))


class Repeated(io.RawIOBase):
    """A list of so many copies of an entry, made while it is read."""

    def __init__(self, entry: bytes, times: int) -> None:
        self._entry, self._left, self._rest = entry + b",", times, b"["

    def readable(self) -> bool:
        return True

    def readinto(self, into) -> int:
        while len(self._rest) < len(into) and self._left:
            self._left -= 1
            self._rest += self._entry if self._left else self._entry[:-1] + b"]"
        number = min(len(into), len(self._rest))
        into[:number], self._rest = self._rest[:number], self._rest[number:]
        return number


@pytest.fixture(scope="module")
def entry() -> bytes:
    return json.dumps(entry_of("coyo_image_0/00000/0.jpg", draw(0)[1])).encode()


def peak_bytes(entry: bytes, times: int) -> int:
    tracemalloc.start()
    number = sum(1 for _ in stream_entries(io.BufferedReader(Repeated(entry, times)), "a.json"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == times
    return peak


def test_ten_times_the_entries_take_no_more_memory(entry):
    """40 MB of JSON in a few; `json.load` would take several times the file."""
    few, many = peak_bytes(entry, 2_000), peak_bytes(entry, 20_000)
    assert many < few * 1.2
    assert many < 12_000_000
