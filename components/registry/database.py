"""MLflow's tables, whole at every moment, and whose turn it is to move aliases.

MLflow makes its tables one by one, each kept at once, so a process that dies in between leaves a
file that no later run can open. Here they are made in a file beside, and SQLite copies that into
its place in a single transaction: also over what a dead process left, as long as it holds nothing.
"""

import fcntl
import getpass
import glob
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from components.core.errors import BusyError, InputError

ARTIFACTS = "artifacts"  # folder beside the database
MAKING = ".making-"
LOCKED_S = 20.0
VERSION_TABLE, TEMPORARY_TABLE = "alembic_version", "_alembic_tmp_"
# Of the drivers that SQLAlchemy uses; without it an address nobody answers takes minutes.
TIMEOUT_NAMES = {"psycopg2": "connect_timeout", "psycopg": "connect_timeout",
                 "mysqldb": "connect_timeout", "pymysql": "connect_timeout",
                 "pg8000": "timeout", "pyodbc": "timeout"}  # fmt: skip
CONNECT_S = 10


def make_whole(database: Path) -> None:
    """Let a file hold all of MLflow's tables; the caller holds a lock.

    Raises:
        InputError: it holds something in other tables than this MLflow's; nothing was changed.
        sqlite3.Error: it is no database, is damaged, or is locked.
    """
    _remove_unfinished(database)
    revision = _revision(database)
    if revision == latest_revision():
        return
    with tempfile.TemporaryDirectory(prefix=_prefix(database), dir=database.parent) as folder:
        fresh = Path(folder) / database.name
        make_tables(fresh, database.parent / ARTIFACTS)
        _require_empty(database, _num_rows(fresh), revision)
        _copy(fresh, database)


def require_current(address: str) -> None:
    """Refuse a server's database whose tables are not this MLflow's: they are not ours to change.

    Raises:
        InputError: there are none, or those of another version.
        ImportError, SQLAlchemyError: its driver is missing, or nobody answers.
    """
    import sqlalchemy
    from alembic.migration import MigrationContext

    driver = sqlalchemy.make_url(address).get_dialect().driver
    timeout = {TIMEOUT_NAMES[driver]: CONNECT_S} if driver in TIMEOUT_NAMES else {}
    engine = sqlalchemy.create_engine(address, connect_args=timeout)
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    if revision != latest_revision():
        raise InputError(
            f"{address} holds {_told(revision)} of MLflow, this MLflow needs {latest_revision()}; "
            "whoever keeps that database backs it up and runs `mlflow db upgrade` with its address"
        )


def set_location(database: Path, experiment_id: str, location: str) -> None:
    """Write where an experiment keeps its files from now on, which MLflow itself never changes."""
    with closing(_connect(database)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (location, experiment_id),
        )


def latest_revision() -> str:
    """Name of the newest state of the tables that the installed MLflow knows."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def make_tables(path: Path, artifacts: Path) -> None:
    """Let MLflow make a new database file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore(f"sqlite:///{path}", artifacts.as_uri())
    store.engine.dispose()


def _revision(database: Path) -> str | None:
    """Which state of the tables a file is in; None if it says none."""
    if VERSION_TABLE not in _num_rows(database):
        return None
    with closing(_connect(database)) as connection:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return str(rows[0][0]) if len(rows) == 1 else None


def _num_rows(database: Path) -> dict[str, int]:
    """How many rows each table of a file has; a missing or empty file has no tables."""
    if not database.exists():
        return {}
    with closing(_connect(database)) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
            "ESCAPE '\\'"
        ).fetchall()
        return {name: _count(connection, name) for (name,) in names}


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    query = f'SELECT count(*) FROM "{quoted}"'  # noqa: S608 - a name of the file's own
    return int(connection.execute(query).fetchone()[0])


def _require_empty(database: Path, fresh: dict[str, int], revision: str | None) -> None:
    """Refuse to write over a table that has more rows than MLflow itself puts into a new file."""
    found = _num_rows(database)
    # A dead process may have been rebuilding a table, under this name.
    names = {name: name.removeprefix(TEMPORARY_TABLE) for name in found if name != VERSION_TABLE}
    strange = sorted(name for name, known in names.items() if known not in fresh)
    held = sorted(name for name, known in names.items() if found[name] > fresh.get(known, 0))
    if held or strange:
        raise InputError(
            f"{database} holds {_told(revision)}, this MLflow needs {latest_revision()}, and "
            f"{', '.join((held or strange)[:3])} must not be lost; nothing was changed. Make a "
            f"copy of the file, then run `mlflow db upgrade 'sqlite:///{database}'`, or name "
            "another file by tracking_uri"
        )


def _told(revision: str | None) -> str:
    return f"revision {revision} of the tables" if revision else "no whole set of tables"


def _copy(fresh: Path, database: Path) -> None:
    """Put all tables in at once: a reader, or who comes after a kill, sees none or all of them."""
    with closing(_connect(fresh)) as source, closing(_connect(database, "rwc")) as target:
        target.execute("BEGIN EXCLUSIVE")  # the copying itself would wait for a lock for ever
        target.rollback()
        source.backup(target)


def _connect(database: Path, mode: str = "rw") -> sqlite3.Connection:
    # Not read-only: what a killed process was writing is rolled back on opening.
    return sqlite3.connect(f"{database.as_uri()}?mode={mode}", uri=True, timeout=LOCKED_S)


def _prefix(database: Path) -> str:
    return f".{database.name}{MAKING}"


def _remove_unfinished(database: Path) -> None:
    for folder in database.parent.glob(f"{glob.escape(_prefix(database))}*"):
        shutil.rmtree(folder, ignore_errors=True)


LEASE_S = 300
WAIT_S = 400  # more than a lease: who waits for a dead process repairs what it left
LOCK_POLL_S, SERVER_POLL_S = 0.1, 5.0
USER_TAG, HOLDER_TAG = "mlflow.user", "pixclip.holder"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START_FIELD = 19  # of /proc/<pid>/stat behind the name, which may hold spaces: the starting time


# Whose turn it is to move a model's aliases: a lock file, or the open entries of a server's log.
#
# Clocks of other machines are not believed: how long an entry has been open counts from when this
# process first saw it, by its own clock that nobody sets. On the machine that opened it a dead
# process is seen at once.


class Sightings:
    """Since when this process has seen the open entries of others."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def age_s(self, run: Any) -> float:
        """For how long an entry has been seen open."""
        now = time.monotonic()
        return now - self._since.setdefault(run.info.run_id, now)

    def is_dead(self, run: Any) -> bool:
        """Whether its process is dead, or silent for so long that it counts as dead."""
        age_s = self.age_s(run)
        return age_s >= LEASE_S or is_gone(run.data.tags.get(HOLDER_TAG, ""))

    def wait_for(self, open_entries: Callable[[], Sequence[Any]]) -> None:
        """Wait until no process that may live has an open entry, but not for ever."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            seen = [self.is_dead(run) for run in open_entries()]  # each is seen from now on
            if all(seen):
                return
            time.sleep(SERVER_POLL_S)


def identity() -> dict[str, str]:
    """Who opens an entry, as its tags: for people, and for processes on the same machine."""
    return {USER_TAG: user_name(), HOLDER_TAG: _holder(os.getpid())}


def user_name() -> str:
    """Who this is; in a container often nobody that it has a name for."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # OSError since Python 3.13
        return f"uid {os.getuid()}"


def is_gone(holder: str) -> bool:
    """Whether the process of a tag was of this machine and lives no more; False if unknown."""
    parts = holder.split()
    if len(parts) != 4 or parts[:2] != _machine() or not parts[2].isdecimal():
        return False
    return _started(int(parts[2])) != parts[3]


def _holder(pid: int) -> str:
    return " ".join([*_machine(), str(pid), _started(pid)])


def _machine() -> list[str]:
    """Where a process number means something: this start of this machine, in this container."""
    try:
        return [BOOT_ID.read_text(encoding="utf-8").strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:  # no Linux
        return []


def _started(pid: int) -> str:
    """When a process started, so that a later one of the same number is not taken for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else fields[START_FIELD].decode()


@contextmanager
def lock_file(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that dies with its holder.

    Raises:
        BusyError: somebody else has held it for very long.
    """
    with path.open("a", encoding="utf-8") as lock:
        deadline = time.monotonic() + WAIT_S
        while not _is_taken(lock):
            if time.monotonic() > deadline:
                raise BusyError(f"{what} has been under way for {WAIT_S} s; wait for it to end")
            time.sleep(LOCK_POLL_S)
        yield


def _is_taken(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
