"""Lists of latents with notes, in one SQLite file of the workspace. Needs no torch.

Several tabs, or several explorers of one workspace, may change a list at once:

1. The file is in WAL mode, and every change is one transaction that begins by taking the write lock.
2. A change says what is to be different (this latent in, this one before that one), never what the whole list is, so that
   two tabs cannot undo each other.
3. A note is given with the note that its writer saw; where that is no longer the one that stands, nothing is written (Conflict).

A list goes in and out as {"format": "diascope-list-1", "name", "model", "latents": [{"source", "latent", "note"}, ...]}.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

NAME = "lists.sqlite"
FORMAT = "diascope-list-1"
VERSION = 1  # of the tables
MOST_LISTS, MOST_LATENTS = 1000, 5000
PATIENCE = 5.0  # seconds that a change waits for another writer
_TABLES = """
CREATE TABLE IF NOT EXISTS list (id TEXT PRIMARY KEY, name TEXT NOT NULL, changed REAL NOT NULL);
CREATE TABLE IF NOT EXISTS latent (
    list TEXT NOT NULL REFERENCES list ON DELETE CASCADE, source TEXT NOT NULL, latent INTEGER NOT NULL,
    note TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (list, source, latent));
CREATE INDEX IF NOT EXISTS of_latent ON latent (source, latent);
"""

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
Note = Annotated[str, Meta(max_length=10_000)]
Key = tuple[str, int]


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A latent of a source, and what somebody wrote of it."""

    source: Annotated[str, Meta(min_length=1, max_length=500)]
    latent: Annotated[int, Meta(ge=0, lt=2**31)]
    note: Note = ""


class Conflict(Exception):
    """Somebody else has written meanwhile; holds the note that stands."""

    def __init__(self, note: str) -> None:
        super().__init__("this note was changed elsewhere meanwhile")
        self.note = note


class Lists:
    """The lists in the file at `path`, which appears with the first list."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def all(self, key: Key | None = None) -> list[dict[str, Any]]:
        """Every list: id, name, number of latents, time of the last change, the latest first; `has` where a latent is asked about."""
        if not self.path.exists():
            return []
        of = "SELECT id, name, changed, (SELECT count(*) FROM latent WHERE list = id) AS latents, "
        has = "EXISTS (SELECT 1 FROM latent WHERE list = id AND source = ? AND latent = ?) AS has FROM list "
        with self._open() as db:
            found = [dict(row) for row in db.execute(of + has + "ORDER BY changed DESC, id", key or ("", -1))]
        return [{**row, "has": bool(row["has"])} if key else {k: v for k, v in row.items() if k != "has"} for row in found]

    def get(self, id: str) -> dict[str, Any]:
        """One list with its latents in order. LookupError where there is none."""
        if not self.path.exists():
            raise _missing()
        with self._open() as db:
            db.execute("BEGIN")  # both are read from one state of the file
            found = _list(db, id)
            latents = db.execute("SELECT source, latent, note FROM latent WHERE list = ? ORDER BY place", (id,)).fetchall()
        return {**dict(found), "latents": [dict(row) for row in latents]}

    def make(self, name: str, entries: Sequence[Entry] = ()) -> str:
        """A new list; its id. A latent that is given twice keeps its first place. ValueError where there are too many."""
        id = secrets.token_urlsafe(6)
        first: dict[Key, Entry] = {}
        for e in entries:
            first.setdefault((e.source, e.latent), e)
        with self._change() as db:
            if db.execute("SELECT count(*) FROM list").fetchone()[0] >= MOST_LISTS:
                raise ValueError(f"there are {MOST_LISTS} lists already: delete one")
            if len(first) > MOST_LATENTS:
                raise ValueError(f"the list has {len(first):,} latents; the limit is {MOST_LATENTS:,}")
            db.execute("INSERT INTO list VALUES (?, ?, ?)", (id, name, time.time()))
            rows = [(id, e.source, e.latent, e.note, place) for place, e in enumerate(first.values())]
            db.executemany("INSERT INTO latent VALUES (?, ?, ?, ?, ?)", rows)
        return id

    def rename(self, id: str, name: str) -> None:
        """Call the list `name`."""
        with self._change(id) as db:
            db.execute("UPDATE list SET name = ? WHERE id = ?", (name, id))

    def delete(self, id: str) -> None:
        """Take the list away, with its notes."""
        with self._change(id) as db:
            db.execute("DELETE FROM list WHERE id = ?", (id,))

    def add(self, id: str, entry: Entry) -> None:
        """Put a latent at the end; nothing changes where it is in the list already. ValueError where the list is full."""
        with self._change(id) as db:
            count, last = db.execute("SELECT count(*), coalesce(max(place), -1) FROM latent WHERE list = ?", (id,)).fetchone()
            row = (id, entry.source, entry.latent, entry.note, last + 1)
            added = db.execute("INSERT OR IGNORE INTO latent VALUES (?, ?, ?, ?, ?)", row).rowcount
            if added and count >= MOST_LATENTS:
                raise ValueError(f"the list has {MOST_LATENTS:,} latents already: begin another")

    def remove(self, id: str, key: Key) -> None:
        """Take a latent out; nothing changes where it is not in the list."""
        with self._change(id) as db:
            db.execute("DELETE FROM latent WHERE list = ? AND source = ? AND latent = ?", (id, *key))

    def write(self, id: str, key: Key, note: str, was: str) -> None:
        """Write a note over the note `was`. Conflict where another one stands; LookupError where the latent is not in the list."""
        with self._change(id) as db:
            where = "WHERE list = ? AND source = ? AND latent = ?"
            found = db.execute(f"SELECT note FROM latent {where}", (id, *key)).fetchone()
            if found is None:
                raise LookupError("the latent is no longer in this list")
            if found["note"] not in (was, note):
                raise Conflict(found["note"])
            db.execute(f"UPDATE latent SET note = ? {where}", (note, id, *key))

    def move(self, id: str, key: Key, before: Key | None) -> None:
        """Put a latent before another, or at the end. LookupError where one of them is not in the list."""
        with self._change(id) as db:
            rows = db.execute("SELECT source, latent FROM latent WHERE list = ? ORDER BY place", (id,)).fetchall()
            order = [(row["source"], row["latent"]) for row in rows]
            if key not in order or (before is not None and before not in order):
                raise LookupError("the latent is no longer in this list")
            if key == before:
                return
            order.remove(key)
            order.insert(len(order) if before is None else order.index(before), key)
            places = [(place, id, *k) for place, k in enumerate(order)]
            db.executemany("UPDATE latent SET place = ? WHERE list = ? AND source = ? AND latent = ?", places)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of this call alone: calls come from many threads."""
        db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            if (version := db.execute("PRAGMA user_version").fetchone()[0]) > VERSION:
                raise ValueError(f"{self.path} was written by a later version of diascope ({version}): update it")
            yield db
        finally:
            db.close()

    @contextlib.contextmanager
    def _change(self, id: str | None = None) -> Iterator[sqlite3.Connection]:
        """One transaction, of the list `id` or of none yet: all of it, or nothing where the block raises."""
        if id is not None and not self.path.exists():
            raise _missing()
        with self._open() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            db.execute("BEGIN IMMEDIATE")
            try:
                if id is not None:
                    _list(db, id)
                    db.execute("UPDATE list SET changed = ? WHERE id = ?", (time.time(), id))
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def _list(db: sqlite3.Connection, id: str) -> sqlite3.Row:
    found = db.execute("SELECT id, name, changed FROM list WHERE id = ?", (id,)).fetchone()
    if found is None:
        raise _missing()
    return found


def _missing() -> LookupError:
    return LookupError("there is no such list: it was deleted, perhaps in another tab")
