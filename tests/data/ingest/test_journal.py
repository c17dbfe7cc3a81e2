import logging
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import InputError
from components.data.ingest.failures import WorldError
from components.data.ingest.journal import FILE_HEAD, HEAD, Journal, read_entries

EMPTY = 2 * FILE_HEAD.size
PAYLOADS = st.lists(st.binary(max_size=60), min_size=1, max_size=8)


def write_journal(path, payloads):
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        for number, payload in enumerate(payloads):
            journal.append("fetched", f"url {number}", {"reason": ""}, payload)


def held(path):
    with Journal(path) as journal:
        found = [journal.find("fetched", f"url {number}") for number in range(10)]
        return [journal.payload(entry) for entry in found if entry]


@settings(max_examples=60, deadline=None)
@given(PAYLOADS, st.integers(min_value=0))
def test_a_journal_cut_anywhere_keeps_every_record_before_the_cut(tmp_path_factory, payloads, cut):
    path = tmp_path_factory.mktemp("journal") / "journal"
    write_journal(path, payloads)
    ends = [entry.offset + entry.size for entry in read_entries(path)]
    cut %= path.stat().st_size + 1
    os.truncate(path, cut)
    assert held(path) == payloads[: sum(end <= cut for end in ends)]
    assert path.stat().st_size == max([end for end in ends if end <= cut], default=EMPTY)


@settings(max_examples=300, deadline=None)
@given(PAYLOADS, st.integers(min_value=0), st.integers(1, 255))
def test_a_flipped_byte_costs_at_most_its_own_record_and_is_told(
    tmp_path_factory, payloads, position, change
):
    path = tmp_path_factory.mktemp("journal") / "journal"
    write_journal(path, payloads)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= change
    path.write_bytes(data)
    told = Told()
    with told:
        found = held(path)
    assert len(payloads) - len(found) <= 1
    assert all(payload in payloads for payload in found)
    assert len(told.messages) == 1


class Told(logging.Handler):
    """Collects what the journal says."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())

    def __enter__(self):
        logging.getLogger("components.data.ingest.journal").addHandler(self)

    def __exit__(self, *_):
        logging.getLogger("components.data.ingest.journal").removeHandler(self)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_anywhere_gives_no_wrong_byte(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    payloads = data.draw(PAYLOADS)
    write_journal(path, payloads)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), start + data.draw(st.integers(0, 80)))
        raw[start:end] = data.draw(st.binary(max_size=80))
    path.write_bytes(raw)
    assert all(payload in payloads for payload in held(path))
    with Journal(path) as journal:
        journal.append("fetched", "url 9", {}, b"new")
    assert held(path)[-1] == b"new"


@pytest.mark.parametrize(
    "place", ["mark", "size of the fields", "size of the bytes", "fields", "bytes", "last byte"]
)
def test_wherever_a_record_is_damaged_the_next_one_is_found(tmp_path, place):
    path = tmp_path / "journal"
    write_journal(path, [b"a" * 50, b"b" * 50, b"c" * 50])
    first, second, _ = read_entries(path)
    start = first.offset + first.size
    where = {
        "mark": start,
        "size of the fields": start + 12,
        "size of the bytes": start + 17,
        "fields": start + HEAD.size + 3,
        "bytes": second.offset,
        "last byte": second.offset + second.size - 1,
    }[place]
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    assert held(path) == [b"a" * 50, b"c" * 50]


def test_a_cut_is_no_damage_and_damage_is_told_with_its_place(tmp_path, caplog):
    path = tmp_path / "journal"
    write_journal(path, [b"one", b"two"])
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 1)
    held(path)
    assert not caplog.records
    path.write_bytes(whole[:-1] + b"x")
    held(path)
    assert "is damaged in 1 place" in caplog.text
    assert "asked for again" in caplog.text


def test_a_file_that_is_no_journal_is_kept_aside(tmp_path, caplog):
    path = tmp_path / "journal"
    path.write_bytes(b"8f3a {}\n" * 100)
    with Journal(path) as journal:
        journal.append("fetched", "url 0", {}, b"new")
    assert held(path) == [b"new"]
    assert (tmp_path / "journal.unreadable").read_bytes() == b"8f3a {}\n" * 100
    assert "journal.unreadable" in caplog.text


def test_bytes_that_change_while_the_journal_is_open_are_not_given_out(tmp_path):
    path = tmp_path / "journal"
    with Journal(path) as journal:
        entry = journal.append("fetched", "url 0", {}, b"data")
        with path.open("r+b") as file:
            file.seek(entry.offset)
            file.write(b"D")
        with pytest.raises(InputError, match="damaged while it was in use"):
            journal.payload(entry)


def test_a_full_disk_is_named_and_costs_no_record_before_it(tmp_path):
    path = tmp_path / "journal"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(path) as journal:
        journal.append("fetched", "url 0", {}, b"kept")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            with pytest.raises(WorldError, match=r"cannot write .*journal.*File too large"):
                journal.append("fetched", "url 1", {}, bytes(5000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
    assert held(path) == [b"kept"]


def test_a_server_cannot_send_bytes_that_become_a_record(tmp_path):
    write_journal(tmp_path / "other", [b"forged"] * 9)
    sent = (tmp_path / "other").read_bytes()
    path = tmp_path / "journal"
    write_journal(path, [sent, b"good"])
    data = bytearray(path.read_bytes())
    data[EMPTY] ^= 1  # the head of the record that holds the other journal
    path.write_bytes(data)
    assert held(path) == [b"good"]


def test_a_journal_goes_on_after_a_cut(tmp_path):
    path = tmp_path / "journal"
    write_journal(path, [b"one", b"two"])
    os.truncate(path, path.stat().st_size - 1)
    with Journal(path) as journal:
        journal.append("fetched", "url 1", {"reason": ""}, b"again")
    assert held(path) == [b"one", b"again"]


def test_the_newest_record_of_a_url_counts(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        journal.append("fetched", "url 0", {"reason": "timeout"})
        journal.append("fetched", "url 0", {"reason": ""}, b"data")
    assert held(tmp_path / "journal") == [b"data"]


def test_a_payload_that_looks_like_a_record_is_only_a_payload(tmp_path):
    write_journal(tmp_path / "other", [b""] * 9)
    line = (tmp_path / "other").read_bytes()
    write_journal(tmp_path / "journal", [line, line * 3])
    assert held(tmp_path / "journal") == [line, line * 3]


def test_threads_may_write_at_once(tmp_path):
    with Journal(tmp_path / "journal") as journal, ThreadPoolExecutor(8) as pool:
        for number in range(200):
            payload = bytes([number]) * 5000
            pool.submit(journal.append, "checked", f"url {number}", {}, payload)
    with Journal(tmp_path / "journal") as journal:
        for number in range(200):
            entry = journal.get("checked", f"url {number}")
            assert journal.payload(entry) == bytes([number]) * 5000


def test_a_url_of_any_characters_is_kept(tmp_path):
    url = "http://x/\ud800\n\0é"
    with Journal(tmp_path / "journal") as journal:
        journal.append("fetched", url, {"reason": "bad_url"})
    with Journal(tmp_path / "journal") as journal:
        assert journal.get("fetched", url).fields["reason"] == "bad_url"


def test_an_unknown_record_is_an_error(tmp_path):
    with Journal(tmp_path / "journal") as journal, pytest.raises(KeyError):
        journal.get("fetched", "nowhere")


def test_a_url_of_any_length_does_not_end_the_journal(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        journal.append("fetched", "data:" + "a" * 500_000, {}, b"first")
        journal.append("fetched", "url 0", {}, b"second")
    assert held(tmp_path / "journal") == [b"second"]
