"""Every answer, kept under its request's hash as soon as it is received.

SQLite in WAL mode: one commit an answer, so a killed process loses none that it had received, and
several processes may share the file.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from components.kernel.errors import InputError

LAYOUT = 1  # PRAGMA user_version; another number is another layout of the table


@dataclass(frozen=True)
class RawAnswer:
    """What a server answered, before anything is made of it."""

    content: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class AnswerCache:
    """Answers by request hash; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._open()
        except sqlite3.DatabaseError as error:
            raise InputError(f"request cache {path}: {error}; remove it to start afresh") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, request_hash: str) -> RawAnswer | None:
        """The kept answer, if there is one."""
        row = self._connection.execute(
            "SELECT content, finish_reason, prompt_tokens, completion_tokens, seconds"
            " FROM answers WHERE request_hash = ?",
            (request_hash,),
        ).fetchone()
        return RawAnswer(*row) if row else None

    def put(self, request_hash: str, answer: RawAnswer) -> None:
        """Keep an answer; when this returns, killing the process does not lose it."""
        self._connection.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
            (
                request_hash,
                answer.content,
                answer.finish_reason,
                answer.prompt_tokens,
                answer.completion_tokens,
                answer.seconds,
            ),
        )

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        # Without a wait for the disk at each commit: what the process wrote outlives it anyway.
        run("PRAGMA synchronous = NORMAL")
        layout = run("PRAGMA user_version").fetchone()[0]
        if layout not in (0, LAYOUT):
            raise sqlite3.DatabaseError(f"its layout is {layout}, this version reads {LAYOUT}")
        run(
            "CREATE TABLE IF NOT EXISTS answers (request_hash TEXT PRIMARY KEY,"
            " content TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
            " completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"
        )
        run(f"PRAGMA user_version = {LAYOUT}")
