"""MLflow's tables in a file: whole or not there, whenever the process that makes them dies."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.engine import Engine

from components.core.errors import InputError
from components.registry import database as tables
from components.registry.database import make_tables, make_whole, require_current
from components.registry.store import TrackingError, open_client
from tests.model_registry import empty_database

EVERY = 160  # statements between two deaths; there are about 1,700


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        names = connection.execute("SELECT count(*) FROM experiments").fetchone()
        check = connection.execute("PRAGMA integrity_check").fetchone()
    return (found, names, check) == ([(tables.latest_revision(),)], (1,), ("ok",))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in place of MLflow, which takes a second for each file."""
    whole = empty_database()
    monkeypatch.setattr(tables, "make_tables", lambda path, _: shutil.copy(whole, path))


@contextmanager
def each_statement(act: Any) -> Iterator[None]:
    listened = {"before_cursor_execute": act, "connect": unsynchronized}
    for name, function in listened.items():
        sqlalchemy.event.listen(Engine, name, function)
    try:
        yield
    finally:
        for name, function in listened.items():
            sqlalchemy.event.remove(Engine, name, function)


def unsynchronized(connection: Any, _: object) -> None:
    """Do not wait for the disk: no test takes the power away."""
    connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="module")
def half_made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files as MLflow leaves them if it dies while it makes its tables, journals included."""
    folder = tmp_path_factory.mktemp("half")
    seen: list[Path] = []
    count = iter(range(10**6))

    def snapshot(*_: object) -> None:
        if next(count) % EVERY == 0:
            seen.append(folder / f"{len(seen):04}")
            seen[-1].mkdir()
            for file in folder.glob("mlflow.db*"):
                shutil.copy(file, seen[-1])

    with each_statement(snapshot):
        make_tables(folder / "mlflow.db", folder)
    return [path / "mlflow.db" for path in seen if (path / "mlflow.db").exists()]


@pytest.mark.usefixtures("quickly")
def test_what_a_process_that_died_in_the_middle_left_is_made_whole(
    half_made: list[Path],
) -> None:
    assert len(half_made) > 5
    for path in half_made:
        make_whole(path)
        assert is_whole(path)
        assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.usefixtures("quickly")
def test_a_half_made_file_that_holds_a_run_is_not_touched(
    half_made: list[Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(half_made[-1], tmp_path / "mlflow.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
        connection.execute("INSERT INTO registered_models (name, workspace) VALUES ('mine', 'x')")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"cfd24bdc0731.*registered_models must not be lost"):
        make_whole(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.usefixtures("quickly")
def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "airflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE dag_run (id INTEGER)")
    with pytest.raises(InputError, match="dag_run must not be lost"):
        make_whole(path)


@pytest.mark.usefixtures("quickly")
def test_an_empty_file_and_a_name_with_signs_are_made_whole(tmp_path: Path) -> None:
    for name in ("touched.db", "ü %20#[a]'.db"):
        path = tmp_path / name
        path.touch()
        make_whole(path)
        assert is_whole(path)


@pytest.mark.usefixtures("quickly")
def test_a_locked_file_is_told_of_instead_of_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "LOCKED_S", 0.1)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="database is locked"):
            open_client(f"sqlite:///{path}")


def test_a_damaged_file_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    whole = empty_database().read_bytes()
    for damaged in (whole[:5000], whole[:100] + bytes(4000) + whole[4100:], b"<html>" * 99):
        path.write_bytes(damaged)
        with pytest.raises(TrackingError, match="if it is damaged"):
            open_client(f"sqlite:///{path}")
        assert path.read_bytes() == damaged


def test_a_database_below_a_folder_with_odd_signs_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "Ünï côde 100% #1"
    folder.mkdir()
    shutil.copy(empty_database(), folder / "mlflow.db")
    client = open_client(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("here")
    assert {file.name for file in folder.iterdir()} == {"mlflow.db", ".mlflow.db.opening"}


DYING = """
import os, signal, sys
import sqlalchemy
from sqlalchemy.engine import Engine
from components.registry.store import open_client
count = iter(range(10**6))
def die(*_):
    if next(count) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
sqlalchemy.event.listen(Engine, "before_cursor_execute", die)
open_client(sys.argv[1])
"""


def test_a_killed_maker_leaves_nothing_that_the_next_one_keeps(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run([sys.executable, "-c", DYING, uri, "900"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("mlflow.db")] == []  # not in its place yet
    open_client(uri)
    assert is_whole(tmp_path / "mlflow.db")
    assert {file.name for file in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.opening"}


def test_tables_of_a_server_are_never_changed(tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path}/server.db"  # any address that SQLAlchemy takes
    with pytest.raises(InputError, match=r"no whole set of tables.*`mlflow db upgrade`"):
        require_current(empty)
    assert (tmp_path / "server.db").stat().st_size == 0
    require_current(f"sqlite:///{empty_database()}")


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("postgresql://ada:s3cret@127.0.0.1:9/mlflow", "psycopg2-binary"),
        ("mysql://ada:s3cret@127.0.0.1:9/mlflow", "mysqlclient"),
        ("mysql+pymysql://ada:s3cret@127.0.0.1:9/mlflow", "pymysql"),
        ("mssql+pyodbc://ada:s3cret@127.0.0.1:9/mlflow", "pyodbc"),
    ],
)
def test_a_missing_driver_is_named_by_what_to_install(
    uri: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Exception, match=f"pip install '{package}'") as caught:
        open_client("")
    assert type(caught.value).__name__ == "SettingsError"
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_server_that_nobody_runs_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    start = time.monotonic()
    with pytest.raises(TrackingError, match=r"cannot open http://127\.0\.0\.1:9"):
        open_client("http://127.0.0.1:9")
    assert time.monotonic() - start < 30
    monkeypatch.undo()
    assert dict(os.environ) == before


class Answer(BaseHTTPRequestHandler):
    """Answers everything in one way."""

    status, body, headers_more = 200, b"", {"Retry-After": "3600"}

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.send_response(self.status)
        for name, value in {**self.headers_more, "Content-Length": str(len(self.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>log in</html>"), (200, b'{"experiments": 7}'), (200, b"[" * 100_000),
        (200, b"null"), (401, b"no"), (404, b"nothing here"), (429, b"later"), (503, b"later"),
    ],
)  # fmt: skip
def test_what_answers_in_mlflow_s_place_is_told_soon_and_briefly(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    handler = type("Handler", (Answer,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        start = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            open_client(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert time.monotonic() - start < 30
    assert len(str(caught.value)) < 1500
