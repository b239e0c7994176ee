"""Where lists are kept (lists.py says what they are): tables in an SQLite file, or in a team's PostgreSQL (team_store.py).

Lists -> Store -> Statements: SQL that both databases know, with ? for a value. Needs no torch. What a store promises:

1. `read` shows one state of everything, however many statements are asked in it.
2. `change` is one transaction: all of it, or nothing where the block raises. Two that touch the same list follow one another,
   and the second sees what the first left; two that are `alone` follow one another too.
3. Tables of a version that this code does not know are neither read nor written (ValueError).
4. What cannot be read or written now is Unavailable, in a sentence for a person.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

VERSION = 1  # of the tables
PATIENCE = 5.0  # seconds that a change waits for another writer
TABLES = (
    "CREATE TABLE IF NOT EXISTS list (id TEXT PRIMARY KEY, name TEXT NOT NULL, changed DOUBLE PRECISION NOT NULL)",
    """CREATE TABLE IF NOT EXISTS latent (
    list TEXT NOT NULL REFERENCES list ON DELETE CASCADE, source TEXT NOT NULL, latent INTEGER NOT NULL,
    note TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (list, source, latent))""",
    "CREATE INDEX IF NOT EXISTS of_latent ON latent (source, latent)",
)


class Unavailable(OSError):
    """The lists cannot be read or written now.

    `sentence` is for anybody who asks over HTTP; `str()` adds `why`, the database's own words, for a terminal.
    """

    def __init__(self, sentence: str, why: str = "") -> None:
        super().__init__(f"{sentence} ({why})" if why else sentence)
        self.sentence = sentence


class Statements:
    """SQL within a transaction, over a connection of either database; `mark` is its driver's own sign for a value.

    A text with a NUL character is refused (ValueError): PostgreSQL has none, and lists move between databases.
    """

    def __init__(self, db: Any, mark: str = "?") -> None:
        self._db, self._mark = db, mark

    def rows(self, sql: str, given: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """What a query finds, by the columns' names."""
        cursor = self._db.execute(self._own(sql), _kept(given))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor]

    def run(self, sql: str, given: Sequence[Any] = ()) -> int:
        """Carry out a change; how many rows it met."""
        return self._db.execute(self._own(sql), _kept(given)).rowcount

    def run_many(self, sql: str, given: Iterable[Sequence[Any]]) -> None:
        """Carry out a change once for each of `given`."""
        self._db.cursor().executemany(self._own(sql), [_kept(each) for each in given])

    def _own(self, sql: str) -> str:
        assert "%" not in sql, "a driver's own sign"
        return sql.replace("?", self._mark)


class Store(Protocol):
    """Where lists are kept."""

    def begun(self) -> bool:
        """False where nothing was ever written, so that there is nothing to read."""
        ...

    def read(self) -> AbstractContextManager[Statements]:
        """Queries of one state."""
        ...

    def change(self, *, alone: bool = False) -> AbstractContextManager[Statements]:
        """One transaction; `alone` for what depends on all lists, not on one."""
        ...


class SQLiteFile:
    """The lists in the file at `path`, which appears with the first list. In WAL mode; each change takes the one write lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begun(self) -> bool:
        """Whether the file is there."""
        with _told():
            return self.path.exists()

    @contextlib.contextmanager
    def read(self) -> Iterator[Statements]:
        """Queries of one state of the file."""
        with self._open() as db:
            db.execute("BEGIN")
            yield Statements(db)

    @contextlib.contextmanager
    def change(self, *, alone: bool = False) -> Iterator[Statements]:
        """One transaction, and no other beside it."""
        with self._open() as db:
            if _version(db) < VERSION:
                _write_ahead(db)
                db.executescript(f"BEGIN IMMEDIATE; {'; '.join(TABLES)}; PRAGMA user_version = {VERSION}; COMMIT;")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield Statements(db)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of this call alone: calls come from many threads."""
        with _told(), contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as db:
            db.execute("PRAGMA foreign_keys = ON")
            if (version := _version(db)) > VERSION:
                raise ValueError(f"{self.path} was written by a later version of diascope ({version}): update it")
            yield db


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _write_ahead(db: sqlite3.Connection) -> None:
    """Put the file into WAL mode. Where several first writers try at once, SQLite refuses some without waiting: they try again."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, PermissionError) as error:
        sentence = f"the lists cannot be read or written ({error}): is the workspace on a full or read-only disk?"
        raise Unavailable(sentence) from error


def _kept(given: Sequence[Any]) -> Sequence[Any]:
    """`given`, which a database can keep."""
    if any(isinstance(value, str) and "\0" in value for value in given):
        raise ValueError("a text holds a NUL character, which not every database can keep: take it out")
    return given
