"""What services replied, and what they were asked for money, in one file that runs share and survive with."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from forage.errors import DataError

TABLES = """
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, asked TEXT NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (name TEXT PRIMARY KEY, requests INTEGER NOT NULL) WITHOUT ROWID;
"""
BUSY_S = 30.0  # that another process may hold the file


class Kept:
    """Values by what was asked, and counters that never pass their limit, in an SQLite file (None: in memory).

    Every change is on disk when the method returns, and processes may share the file.

    Raises:
        DataError: the file can't be opened, or is no such file.
    """

    def __init__(self, file: Path | None) -> None:
        self._name = str(file) if file else ":memory:"
        try:
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self._name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._base.executescript(TABLES)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self._name} can't be used as a cache: {error}") from error

    def get(self, kind: str, asked: str) -> str | None:
        """What is kept; None where nothing is."""
        found = self._do("SELECT value FROM kept WHERE key = ?", _key(kind, asked)).fetchone()
        return found[0] if found else None

    def put(self, kind: str, asked: str, value: str) -> None:
        """Keep a value.

        Args:
            kind: what the value depends on besides what was asked: who was asked, and with which settings.
        """
        self._do("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", _key(kind, asked), asked, value)

    def spend(self, name: str, limit: int | None) -> bool:
        """Count one request, unless that would pass the limit (None: none); whether it was counted."""
        self._do("INSERT OR IGNORE INTO spent VALUES (?, 0)", name)
        most = 2**62 if limit is None else limit
        done = self._do("UPDATE spent SET requests = requests + 1 WHERE name = ? AND requests < ?", name, most)
        return done.rowcount == 1

    def spent(self, name: str) -> int:
        """Requests counted so far."""
        found = self._do("SELECT requests FROM spent WHERE name = ?", name).fetchone()
        return int(found[0]) if found else 0

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def __del__(self) -> None:
        if hasattr(self, "_base"):
            self._base.close()

    def _do(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        try:
            return self._base.execute(statement, values)
        except sqlite3.Error as error:
            raise DataError(f"{self._name} can't be used as a cache: {error}") from error


def _key(kind: str, asked: str) -> str:
    return hashlib.sha256(f"{len(kind)} {kind} {asked}".encode(errors="surrogatepass")).hexdigest()
