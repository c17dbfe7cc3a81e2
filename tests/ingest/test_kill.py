"""`kill -9` at ten moments: the same bytes come out, and nothing that was kept is fetched again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import pytest

from components.ingest.journal import read_entries
from components.kernel.receipts import RECEIPT_NAME, Receipt
from data_contracts.contract import contract_digest

NUM_URLS, NUM_KILLS = 60, 10
SETTINGS = {
    "allowed_hosts": '["127.0.0.1"]',
    "images_per_shard": 8,
    "min_side_px": 16,
    "concurrency": 4,
    "backoff_s": 0.01,
}
WAIT_S = 60  # far more than anything takes; whoever waits longer has found a bug


@dataclass
class Watch:
    """What the server saw: which answers were complete while the process lived."""

    answered: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    late: set[str] = field(default_factory=set)  # became complete as the process died
    lock: threading.Condition = field(default_factory=threading.Condition)
    is_closed: bool = False  # no further answer gets its last piece
    is_dead: bool = False
    num_finishing: int = 0

    @contextmanager
    def last_piece(self, path: str) -> Iterator[None]:
        """Around the last write of an answer."""
        with self.lock:
            if self.is_closed:
                raise ConnectionResetError
            self.num_finishing += 1
        try:
            yield
            with self.lock:
                self.late.add(path) if self.is_dead else self.answered.update([path])
        finally:
            with self.lock:
                self.num_finishing -= 1
                self.lock.notify_all()

    def new_answers(self) -> set[str]:
        """What was answered to the present process."""
        return set(self.answered - self.before)

    def wait_for(self, number: int) -> None:
        """Until the present process has that many answers."""
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.new_answers()) >= number, WAIT_S)

    def close(self) -> None:
        """Let answers that write their last piece finish, and no other."""
        with self.lock:
            self.is_closed = True
            assert self.lock.wait_for(lambda: not self.num_finishing, WAIT_S)

    def open(self) -> None:
        """For the next process."""
        with self.lock:
            self.is_closed = self.is_dead = False
            self.late.clear()
            self.before = self.answered.copy()


@pytest.fixture
def watched(site, jpeg, photo, encoded):
    """Sixty URLs of all kinds, answered in two pieces; gives the URLs and what was seen."""
    watch = Watch()
    kinds = {7: encoded(photo(7), "PNG"), 11: b"<html>no image</html>", 13: jpeg(13)[:-300]}
    bodies = {number: jpeg(number % 50) for number in range(NUM_URLS)} | kinds

    def answer(number):
        def run(handler):
            status, body = (404, b"") if number % 10 == 3 else (200, bodies[number])
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            is_image = len(body) > 100  # nobody waits for the second half of anything else
            first, second = (head + body[:100], body[100:]) if is_image else (b"", head + body)
            handler.wfile.write(first)
            time.sleep(0.01 + number % 5 * 0.01)
            with watch.last_piece(handler.path):
                handler.wfile.write(second)

        return run

    return [site.on(f"/{number}.jpg", answer(number)) for number in range(NUM_URLS)], watch


@pytest.fixture
def records(watched, write_records):
    """The records, with the receipt of the step that made and checked them."""
    folder = write_records([*watched[0], *watched[0][:5]])
    met = {"records": contract_digest("records")}
    receipt = Receipt("select", "0" * 64, {}, {}, {}, met, {})
    (folder / RECEIPT_NAME).write_text(json.dumps(asdict(receipt)))
    return folder


def start(records: Path, into: Path) -> "subprocess.Popen[bytes]":
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    paths = [f"--images={into}/images", f"--quarantine={into}/quarantine.parquet"]
    command = [
        sys.executable,
        "-m",
        "components.cli",
        "ingest",
        f"--records={records}",
        *paths,
        *settings,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, errors = process.communicate(timeout=WAIT_S * 3)
    assert process.returncode == 0, errors.decode()[-2000:]


def kept(into: Path, port: int) -> set[str]:
    """The paths of the URLs whose result is durable."""
    prefix = f"http://127.0.0.1:{port}"
    return {
        entry.fields["url"].removeprefix(prefix)
        for journal in into.glob(".images.draft-*/_work/journal")
        for entry in read_entries(journal)
        if entry.fields["kind"] == "fetched" and not entry.fields["is_transient"]
    }


def kill(process: "subprocess.Popen[bytes]") -> None:
    assert process.poll() is None, f"ended before the kill: {process.communicate()}"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL


def kill_in_any_instant(process, watch: Watch, into: Path, port: int) -> int:
    """Without any regard; gives the number of answers that were complete but not yet kept."""
    with watch.lock:
        watch.is_dead = True  # from here on, no answer counts as received
        kill(process)
        answered = watch.new_answers()
    watch.close()
    in_journal = kept(into, port)
    watch.answered.update(watch.late & in_journal)  # received, though the server knew it late
    return len(answered - in_journal)


def kill_between_answers(process, watch: Watch, into: Path, port: int) -> int:
    """With answers under way but none just complete: each complete one must be kept by then."""
    watch.close()
    deadline_s = time.monotonic() + WAIT_S
    while missing := watch.new_answers() - kept(into, port):
        assert time.monotonic() < deadline_s, f"complete, yet not kept: {missing}"
        time.sleep(0.005)
    kill(process)
    return 0


def kill_during_packing(process, into: Path) -> None:
    """When the first shard is there, but not the manifest."""
    deadline_s = time.monotonic() + WAIT_S
    while not list(into.glob(".images.draft-*/*.tar")):
        assert time.monotonic() < deadline_s
        time.sleep(0.0005)
    kill(process)


def tree(into: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(into)): path.read_bytes()
        for path in sorted(into.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_run_killed_ten_times_gives_the_same_bytes_and_fetches_nothing_twice(
    watched, records, site, tmp_path
):
    urls, watch = watched
    finish(start(records, tmp_path / "whole"))
    assert len(watch.answered) == len(urls)
    watch.answered.clear()

    into, random = tmp_path / "killed", Random(0)
    num_owed = 0  # second answers owed to a kill between the last byte and the journal
    for number in range(NUM_KILLS - 1):
        watch.open()
        known = kept(into, site.port)
        process = start(records, into)
        watch.wait_for(random.randint(1, 6))
        time.sleep(random.uniform(0, 0.03))
        stop = kill_between_answers if number % 3 else kill_in_any_instant
        num_owed += stop(process, watch, into, site.port)
        assert not watch.new_answers() & known, "kept, yet fetched again"
    watch.open()
    kill_during_packing(start(records, into), into)
    finish(start(records, into))

    assert tree(into) == tree(tmp_path / "whole")
    assert set(watch.answered) == {f"/{number}.jpg" for number in range(NUM_URLS)}
    assert watch.answered.total() == NUM_URLS + num_owed
    assert num_owed <= 3, "one for each kill that came in any instant"
