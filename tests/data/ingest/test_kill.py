"""`kill -9` at ten moments: the same bytes come out, and nothing that was kept is fetched again.

Six kills come while answers are under way but none was completed just now: there, every complete
answer must be durable already. Three come in any instant: of the answers whose last byte was on
its way then, those that were not yet kept may be asked for again, and they are counted exactly.
One comes while shards are written.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random

import pytest

from components.data.ingest.journal import read_entries
from data_contracts.engine.contract import contract_digest
from tests.receipts import write_receipt

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
    def last_piece(self, handler: BaseHTTPRequestHandler) -> Iterator[None]:
        """Around the last write of an answer."""
        with self.lock:
            if self.is_closed or has_hung_up(handler.connection):
                raise ConnectionResetError
            self.num_finishing += 1
        try:
            yield
            with self.lock:
                self.late.add(handler.path) if self.is_dead else self.answered.update(
                    [handler.path]
                )
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


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side is gone: an answer to a process that was killed."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


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
            with watch.last_piece(handler):
                handler.wfile.write(second)

        return run

    return [site.on(f"/{number}.jpg", answer(number)) for number in range(NUM_URLS)], watch


@pytest.fixture
def records(watched, write_records):
    """The records, with the receipt of the step that made and checked them."""
    folder = write_records([*watched[0], *watched[0][:5]])
    met = {"records": contract_digest("records")}
    write_receipt(folder, "select", "records", contracts=met)
    return folder


class Launcher:
    """Starts `pixclip ingest`, one process at a time."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.server = server

    def start(self, records: Path, into: Path) -> int:
        """The id of a new process."""
        settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
        paths = [f"--images={into}/images", f"--quarantine={into}/quarantine.parquet"]
        arguments = ["ingest", f"--records={records}", *paths, *settings]
        print(json.dumps(arguments), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def exit_code(self) -> int:
        """Wait for the process to end."""
        return int(self.server.stdout.readline())

    def kill(self, process: int) -> None:
        os.kill(process, signal.SIGKILL)
        assert self.exit_code() == -signal.SIGKILL, "it had ended before the kill"


@pytest.fixture
def launcher():
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fork_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Launcher(server)
        server.stdin.close()


def kept(into: Path, port: int) -> set[str]:
    """The paths of the URLs whose result is durable."""
    prefix = f"http://127.0.0.1:{port}"
    return {
        entry.fields["url"].removeprefix(prefix)
        for journal in into.glob(".images.draft-*/_work/journal")
        for entry in read_entries(journal)
        if entry.fields["kind"] == "fetched" and not entry.fields["is_transient"]
    }


def kill_in_any_instant(launcher, process, watch: Watch, into: Path, port: int) -> int:
    """Without any regard; gives the number of answers that were complete but not yet kept."""
    with watch.lock:
        watch.is_dead = True  # from here on, no answer counts as received
        launcher.kill(process)
        answered = watch.new_answers()
    watch.close()
    in_journal = kept(into, port)
    watch.answered.update(watch.late & in_journal)  # received, though the server knew it late
    return len(answered - in_journal)


def kill_between_answers(launcher, process, watch: Watch, into: Path, port: int) -> int:
    """With answers under way but none just complete: each complete one must be kept by then."""
    watch.close()
    deadline_s = time.monotonic() + WAIT_S
    while missing := watch.new_answers() - kept(into, port):
        assert time.monotonic() < deadline_s, f"complete, yet not kept: {missing}"
        time.sleep(0.005)
    launcher.kill(process)
    return 0


def kill_during_packing(launcher, process, into: Path) -> None:
    """When the first shard is there, but not yet the whole."""
    deadline_s = time.monotonic() + WAIT_S
    while not list(into.glob(".images.draft-*/*.tar")):
        assert time.monotonic() < deadline_s
        time.sleep(0.0005)
    launcher.kill(process)


def tree(into: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(into)): path.read_bytes()
        for path in sorted(into.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_run_killed_ten_times_gives_the_same_bytes_and_fetches_nothing_twice(
    watched, records, site, launcher, tmp_path
):
    urls, watch = watched
    launcher.start(records, tmp_path / "whole")
    assert launcher.exit_code() == 0
    assert len(watch.answered) == len(urls)
    watch.answered.clear()

    into, random = tmp_path / "killed", Random(0)
    num_owed = 0  # second answers owed to a kill between the last byte and the journal
    for number in range(NUM_KILLS - 1):
        watch.open()
        known = kept(into, site.port)
        process = launcher.start(records, into)
        watch.wait_for(random.randint(1, 6))
        time.sleep(random.uniform(0, 0.03))
        stop = kill_between_answers if number % 3 else kill_in_any_instant
        num_owed += stop(launcher, process, watch, into, site.port)
        assert not watch.new_answers() & known, "kept, yet fetched again"
    watch.open()
    kill_during_packing(launcher, launcher.start(records, into), into)
    launcher.start(records, into)
    assert launcher.exit_code() == 0

    assert tree(into) == tree(tmp_path / "whole")
    assert set(watch.answered) == {f"/{number}.jpg" for number in range(NUM_URLS)}
    assert watch.answered.total() == NUM_URLS + num_owed
