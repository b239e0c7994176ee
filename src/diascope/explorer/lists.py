"""Lists of latents with notes, in an SQLite file of the workspace or in a team's PostgreSQL. Needs no torch.

Several tabs, explorers or people may change a list at once:

1. Every change is one transaction of the store (list_store.py), and those of one list follow one another.
2. A change says what is to be different (this latent in, this one before that one), never what the whole list is, so that
   two tabs cannot undo each other.
3. A note is given with the note that its writer saw; where that is no longer the one that stands, nothing is written (Conflict).

A list goes in and out as {"format": "diascope-list-1", "name", "model", "latents": [{"source", "latent", "note"}, ...]}.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from diascope.explorer.list_store import SQLiteFile, Statements, Store, Unavailable
from diascope.explorer.team_store import Team, is_address

NAME = "lists.sqlite"
FORMAT = "diascope-list-1"
MOST_LISTS, MOST_LATENTS = 1000, 5000

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
    """The lists at `where`: the path of an SQLite file, which appears with the first list, or postgresql://user@host/db.

    What cannot be read or written now raises list_store.Unavailable, what a team's database forbids PermissionError.
    """

    def __init__(self, where: str | Path | Store) -> None:
        self.store: Store = _store(where)

    def all(self, key: Key | None = None) -> list[dict[str, Any]]:
        """Every list: id, name, number of latents, time of the last change, the latest first; `has` where a latent is asked about."""
        if not self.store.begun():
            return []
        of = "SELECT id, name, changed, (SELECT count(*) FROM latent WHERE list = id) AS latents, "
        has = "EXISTS (SELECT 1 FROM latent WHERE list = id AND source = ? AND latent = ?) AS has FROM list "
        with self.store.read() as db:
            found = db.rows(of + has + "ORDER BY changed DESC, id", key or ("", -1))
        return [{**row, "has": bool(row["has"])} if key else {k: v for k, v in row.items() if k != "has"} for row in found]

    def get(self, id: str) -> dict[str, Any]:
        """One list with its latents in order. LookupError where there is none."""
        if not self.store.begun():
            raise _missing()
        with self.store.read() as db:
            found = db.rows("SELECT id, name, changed FROM list WHERE id = ?", (id,))
            latents = db.rows("SELECT source, latent, note FROM latent WHERE list = ? ORDER BY place", (id,))
        if not found:
            raise _missing()
        return {**found[0], "latents": latents}

    def make(self, name: str, entries: Sequence[Entry] = ()) -> str:
        """A new list; its id. A latent that is given twice keeps its first place. ValueError where there are too many."""
        id = secrets.token_urlsafe(6)
        first: dict[Key, Entry] = {}
        for e in entries:
            first.setdefault((e.source, e.latent), e)
        with self.store.change(alone=True) as db:
            if db.rows("SELECT count(*) AS n FROM list")[0]["n"] >= MOST_LISTS:
                raise ValueError(f"there are {MOST_LISTS} lists already: delete one")
            if len(first) > MOST_LATENTS:
                raise ValueError(f"the list has {len(first):,} latents; the limit is {MOST_LATENTS:,}")
            db.run("INSERT INTO list VALUES (?, ?, ?)", (id, name, time.time()))
            rows = [(id, e.source, e.latent, e.note, place) for place, e in enumerate(first.values())]
            db.run_many("INSERT INTO latent VALUES (?, ?, ?, ?, ?)", rows)
        return id

    def rename(self, id: str, name: str) -> None:
        """Call the list `name`."""
        with self._change(id) as db:
            db.run("UPDATE list SET name = ? WHERE id = ?", (name, id))

    def delete(self, id: str) -> None:
        """Take the list away, with its notes."""
        with self._change(id) as db:
            db.run("DELETE FROM list WHERE id = ?", (id,))

    def add(self, id: str, entry: Entry) -> None:
        """Put a latent at the end; nothing changes where it is in the list already. ValueError where the list is full."""
        with self._change(id) as db:
            end = db.rows("SELECT count(*) AS n, coalesce(max(place), -1) AS last FROM latent WHERE list = ?", (id,))[0]
            row = (id, entry.source, entry.latent, entry.note, end["last"] + 1)
            added = db.run("INSERT INTO latent VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            if added and end["n"] >= MOST_LATENTS:
                raise ValueError(f"the list has {MOST_LATENTS:,} latents already: begin another")

    def remove(self, id: str, key: Key) -> None:
        """Take a latent out; nothing changes where it is not in the list."""
        with self._change(id) as db:
            db.run("DELETE FROM latent WHERE list = ? AND source = ? AND latent = ?", (id, *key))

    def write(self, id: str, key: Key, note: str, was: str) -> None:
        """Write a note over the note `was`. Conflict where another one stands; LookupError where the latent is not in the list."""
        with self._change(id) as db:
            where = "WHERE list = ? AND source = ? AND latent = ?"
            found = db.rows(f"SELECT note FROM latent {where}", (id, *key))
            if not found:
                raise LookupError("the latent is no longer in this list")
            if (stands := found[0]["note"]) not in (was, note):
                raise Conflict(stands)
            db.run(f"UPDATE latent SET note = ? {where}", (note, id, *key))

    def move(self, id: str, key: Key, before: Key | None) -> None:
        """Put a latent before another, or at the end. LookupError where one of them is not in the list."""
        with self._change(id) as db:
            old = _place(db, id, key)
            end = "SELECT coalesce(max(place), 0) + 1 AS place FROM latent WHERE list = ?"
            new = _place(db, id, before) if before else db.rows(end, (id,))[0]["place"]
            if new == old:
                return
            if new < old:  # those from there to here go one place down, which fills ours
                db.run("UPDATE latent SET place = place + 1 WHERE list = ? AND place >= ? AND place < ?", (id, new, old))
            else:
                new -= 1
                db.run("UPDATE latent SET place = place - 1 WHERE list = ? AND place > ? AND place <= ?", (id, old, new))
            db.run("UPDATE latent SET place = ? WHERE list = ? AND source = ? AND latent = ?", (new, id, *key))

    @contextlib.contextmanager
    def _change(self, id: str) -> Iterator[Statements]:
        """One transaction on the list `id`, which its first statement keeps other writers from. LookupError where there is none."""
        if not self.store.begun():
            raise _missing()
        with self.store.change() as db:
            if not db.run("UPDATE list SET changed = ? WHERE id = ?", (time.time(), id)):
                raise _missing()
            yield db


def team_lists(address: str) -> Lists:
    """The lists in a team's database, which is asked at once. ValueError where it cannot be used, in the database's words too."""
    team = Team(address)
    try:
        team.open()
    except (Unavailable, PermissionError) as error:
        raise ValueError(str(error)) from error
    return Lists(team)


def _store(where: str | Path | Store) -> Store:
    if isinstance(where, str) and is_address(where):
        return Team(where)
    return SQLiteFile(where) if isinstance(where, str | Path) else where


def _place(db: Statements, id: str, key: Key) -> int:
    found = db.rows("SELECT place FROM latent WHERE list = ? AND source = ? AND latent = ?", (id, *key))
    if not found:
        raise LookupError("the latent is no longer in this list")
    return found[0]["place"]


def _missing() -> LookupError:
    return LookupError("there is no such list: it was deleted, perhaps in another tab")
