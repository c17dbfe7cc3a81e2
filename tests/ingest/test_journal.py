import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest.journal import Journal, read_entries

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
    assert path.stat().st_size == max([end for end in ends if end <= cut], default=0)


@settings(max_examples=300, deadline=None)
@given(PAYLOADS, st.integers(min_value=0), st.integers(1, 255))
def test_a_damaged_record_is_never_taken_for_good(tmp_path_factory, payloads, position, change):
    path = tmp_path_factory.mktemp("journal") / "journal"
    write_journal(path, payloads)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= change
    path.write_bytes(data)
    assert all(payload in payloads for payload in held(path))


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
