"""Answers that were paid for: found again whatever happens to the file, one damaged line aside."""

import logging
import os
import random
import resource
import sqlite3
from pathlib import Path

import pytest

from components.core.errors import InputError, PipelineError
from components.data.llm.cache import HEADER, AnswerCache, RawAnswer
from components.data.llm.replies import raw_answer

NUM = 12


def answer(number: int) -> RawAnswer:
    return RawAnswer(f'{{"caption": "thing {number}\n"}}', "stop", number, 20, 0.25)


def name(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with some answers."""
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache:
        for number in range(NUM):
            cache.put(name(number), answer(number))
    return path


def kept(path: Path) -> list[int]:
    """The numbers of the answers that are found; each of them is what was put."""
    with AnswerCache(path) as cache:
        found = {number: cache.get(name(number)) for number in range(NUM)}
    assert all(value in (None, answer(number)) for number, value in found.items())
    return [number for number, value in found.items() if value]


def test_what_is_put_in_the_cache_is_there_for_another_process(tmp_path):
    half = b'{"choices": [{"message": {"content": "a\\ud800\\u0000b"}}]}'
    odd = raw_answer(half, 0.25)
    assert odd.content == "a?\0b"
    with AnswerCache(tmp_path / "a.sqlite") as first, AnswerCache(tmp_path / "a.sqlite") as second:
        first.put("hash", odd)
        first.put("hash", RawAnswer("another", "stop", 0, 0, 0.0))
        assert second.get("hash") == odd
        assert second.get("other") is None


def test_a_file_that_is_no_cache_is_named_with_advice_and_left_as_it_is(tmp_path):
    path, content = tmp_path / "a.sqlite", b"not a cache, but somebody's file\n" * 9
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.sqlite.*remove it"):
        AnswerCache(path)
    assert path.read_bytes() == content


def test_any_flipped_bit_costs_one_answer_at_most_and_is_told(path, caplog):
    content, moments = path.read_bytes(), random.Random(3)
    for _ in range(200):
        place, bit = moments.randrange(len(content)), 1 << moments.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        caplog.clear()
        found = kept(path)
        assert len(found) >= NUM - 1, (place, bit)
        assert place < len(HEADER) or len(found) == NUM or "asked again" in caplog.text


@pytest.mark.parametrize("damage", [b"\x00" * 512, b"\n" * 99, b"\xff" * 4096, b'{"a": 1}\n'])
def test_a_damaged_page_costs_only_what_was_in_it(path, damage):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + damage + content[middle + 300 :])
    assert len(kept(path)) >= NUM - 4


def test_a_line_that_was_cut_off_at_any_place_costs_itself_and_not_the_next(path):
    content = path.read_bytes()
    last = content.rindex(b"\n", 0, len(content) - 1) + 1
    for end in range(last, len(content), 7):
        path.write_bytes(content[:end])
        with AnswerCache(path) as cache:
            assert cache.get(name(NUM - 1)) is None
            cache.put(name(NUM), answer(NUM))
            cache.put(name(NUM - 1), answer(NUM - 1))
        assert kept(path) == list(range(NUM))
    path.write_bytes(content[:-1])  # only the end of the line is missing: nothing is lost
    assert kept(path) == list(range(NUM))


def test_an_answer_that_is_damaged_after_it_was_found_is_asked_again(path, caplog):
    with AnswerCache(path) as cache, path.open("r+b") as file:
        file.seek(path.read_bytes().index(b"thing 3"))
        file.write(b"THING 3")
        file.flush()
        assert cache.get(name(3)) is None
        cache.put(name(3), answer(3))
        assert cache.get(name(3)) == answer(3)
    assert "asked again" in caplog.text
    assert kept(path) == list(range(NUM))


def test_an_answer_that_looks_like_a_line_of_the_file_is_only_an_answer(path):
    line = path.read_bytes().splitlines()[1].decode()
    forged = RawAnswer(f"\n{line.replace('thing 0', 'thing X')}\n", "stop", 0, 0, 0.0)
    with AnswerCache(path) as cache:
        cache.put("f" * 64, forged)
    with AnswerCache(path) as cache:
        assert cache.get("f" * 64) == forged
    assert kept(path) == list(range(NUM))


def test_a_full_disk_is_told_and_what_was_kept_stays(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AnswerCache(path) as cache:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, limits[1]))
        try:
            with pytest.raises(PipelineError, match=r"cannot be kept in .*make room"):
                cache.put("f" * 64, answer(99))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept(path) == list(range(NUM))
    with AnswerCache(path) as cache:
        cache.put("f" * 64, answer(99))
        assert cache.get("f" * 64) == answer(99)


def test_a_place_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for place in (tmp_path, tmp_path / "file" / "answers.jsonl"):
        with pytest.raises(InputError, match=r"cannot be opened: .*describe\.cache_folder"):
            AnswerCache(place)


def test_two_processes_that_write_at_once_lose_nothing(path):
    if os.fork() == 0:
        with AnswerCache(path) as cache:
            for number in range(100, 300):
                cache.put(name(number), answer(number))
        os._exit(0)
    with AnswerCache(path) as cache:
        for number in range(300, 500):
            cache.put(name(number), answer(number))
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert all(cache.get(name(n)) == answer(n) for n in range(100, 500))


def old_database(path: Path, num: int = NUM) -> Path:
    """A database as the version before kept answers."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE answers (request_hash TEXT PRIMARY KEY, content TEXT NOT NULL,"
            " finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
            " completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"
        )
        rows = ((name(n), *vars(answer(n)).values()) for n in range(num))
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


def test_the_answers_of_an_older_database_are_taken_over(tmp_path):
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache:
        cache.adopt(old_database(tmp_path / "answers.sqlite"))
        cache.adopt(tmp_path / "none.sqlite")
    assert kept(path) == list(range(NUM))


def test_of_a_damaged_database_what_can_be_read_is_taken_over(tmp_path, caplog):
    database = old_database(tmp_path / "answers.sqlite", 500)
    content = bytearray(database.read_bytes())
    content[len(content) * 3 // 4 : len(content) * 3 // 4 + 4096] = b"\xff" * 4096
    database.write_bytes(content)
    (tmp_path / "other.sqlite").write_bytes(b"nothing of the kind")
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache, caplog.at_level(logging.WARNING):
        cache.adopt(database)
        cache.adopt(tmp_path / "other.sqlite")
    assert kept(path) == list(range(NUM))
    assert caplog.text.count("cannot be read") == 2
