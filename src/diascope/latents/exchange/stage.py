"""What was read of others' files, kept on disk until an index is written of it: any order in, order of latents out.

Their files give a latent's row, its examples and its descriptions in different files, not always in the same order. So:

1. A file is read line by line into a SQLite database beside the target, in one transaction that also names the file: what was
   interrupted goes on with the first file that is not named.
2. Texts are kept once, by the hash of their tokens, and tokens are numbered as they come: their files have text, no token ids.
3. At the end everything is read back by latent. In memory is one latent, and the vocabulary.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from diascope.latents.describe.shelf import Description

PADDING = ""  # the token with number 0
LARGEST_INDEX = 2**24
_TABLES = """
CREATE TABLE IF NOT EXISTS files(name TEXT PRIMARY KEY, size INTEGER);
CREATE TABLE IF NOT EXISTS strings(id INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE IF NOT EXISTS texts(id INTEGER PRIMARY KEY, hash BLOB UNIQUE, tokens BLOB);
CREATE TABLE IF NOT EXISTS neurons(source INTEGER, latent INTEGER, row BLOB, PRIMARY KEY(source, latent)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples(source INTEGER, latent INTEGER, row BLOB);
CREATE TABLE IF NOT EXISTS said(source INTEGER, latent INTEGER, row BLOB);
CREATE TABLE IF NOT EXISTS counts(name TEXT PRIMARY KEY, n INTEGER);
"""
_BY_LATENT = """
CREATE INDEX IF NOT EXISTS examples_by_latent ON examples(source, latent);
CREATE INDEX IF NOT EXISTS said_by_latent ON said(source, latent);
"""


class StagedNeuron(msgspec.Struct, array_like=True):
    """A latent's own row; tokens by their numbers here."""

    largest: float
    density: float
    heights: list[float] = []
    centres: list[float] = []
    top: list[tuple[int, float]] = []
    bottom: list[tuple[int, float]] = []
    neighbours: list[tuple[int, float]] = []


class StagedExample(msgspec.Struct, array_like=True):
    """One stretch of text: a text by its number, the peak's offset, the interval, and (offset, activation) where it fires."""

    text: int
    length: int
    peak: int
    low: float
    high: float
    share: float
    fired: list[tuple[int, float]]

    @property
    def strongest(self) -> bool:
        """Whether it is one of the strongest, and of no interval."""
        return self.share < 0


class Staged(NamedTuple):
    """Everything about one latent."""

    latent: int
    neuron: StagedNeuron | None  # None where only examples or descriptions name it
    examples: list[StagedExample]
    said: list[Description]


class Stage:
    """The database in `folder`; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / "stage.sqlite", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _TABLES)
        self._numbers = dict(self._db.execute("SELECT text, id FROM strings")) or {PADDING: 0}
        self._written = len(self._numbers) if self._db.execute("SELECT 1 FROM strings").fetchone() else 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    # -- in -----------------------------------------------------------------------------------------------------------
    def done(self, name: str, size: int) -> bool:
        """Whether the file `name` was read; ValueError where it has another size since."""
        found = self._db.execute("SELECT size FROM files WHERE name = ?", (name,)).fetchone()
        if found and found[0] != size:
            raise ValueError(
                f"{name} changed since an import of it was interrupted: delete the .parts folder beside the target"
            )
        return found is not None

    def begin(self) -> None:
        """Before a file's first row."""
        self._db.execute("BEGIN")

    def end(self, name: str, size: int, counts: dict[str, int]) -> None:
        """After its last: from here on it counts as read."""
        new = list(self._numbers.items())[self._written :]
        self._db.executemany("INSERT INTO strings(text, id) VALUES (?, ?)", new)
        self._db.execute("INSERT INTO files VALUES (?, ?)", (name, size))
        for key, n in counts.items():
            self._db.execute("INSERT INTO counts VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n", (key, n))
        self._db.execute("COMMIT")
        self._written = len(self._numbers)

    def undo(self) -> None:
        """Forget the file that was begun."""
        self._db.execute("ROLLBACK")
        self._numbers = dict(list(self._numbers.items())[: self._written]) or {PADDING: 0}

    def number(self, token: str) -> int:
        """The number of a token's text."""
        return self._numbers.setdefault(token, len(self._numbers))

    def text(self, tokens: Iterable[str]) -> int:
        """The number of a text, which is kept once."""
        raw = np.array([self.number(t) for t in tokens], np.int32).tobytes()
        key = hashlib.blake2b(raw, digest_size=16).digest()
        found = self._db.execute("SELECT id FROM texts WHERE hash = ?", (key,)).fetchone()
        if found:
            return int(found[0])
        return int(self._db.execute("INSERT INTO texts(hash, tokens) VALUES (?, ?)", (key, raw)).lastrowid or 0)

    def add_neuron(self, source: int, latent: int, row: StagedNeuron) -> None:
        """A latent's own row; ValueError for an index that none has, or that came before."""
        try:
            self._db.execute("INSERT INTO neurons VALUES (?, ?, ?)", (source, _index(latent), msgspec.msgpack.encode(row)))
        except sqlite3.IntegrityError as error:
            raise ValueError(f"index {latent} stands there twice") from error

    def add_example(self, source: int, latent: int, row: StagedExample) -> None:
        """One example, after those of the latent that are there."""
        self._db.execute("INSERT INTO examples VALUES (?, ?, ?)", (source, _index(latent), msgspec.msgpack.encode(row)))

    def add_said(self, source: int, latent: int, row: Description) -> None:
        """One description, after those of the latent that are there."""
        self._db.execute("INSERT INTO said VALUES (?, ?, ?)", (source, _index(latent), msgspec.msgpack.encode(row)))

    # -- out ----------------------------------------------------------------------------------------------------------
    def counts(self) -> dict[str, int]:
        """What was left out, by why."""
        return dict(self._db.execute("SELECT name, n FROM counts"))

    def strings(self) -> dict[int, str]:
        """Every token's text by its number."""
        return {number: text for text, number in self._numbers.items()}

    def shape(self) -> tuple[int, int]:
        """(how many texts there are, tokens of the longest)."""
        n, longest = self._db.execute("SELECT COUNT(*), COALESCE(MAX(LENGTH(tokens)), 0) FROM texts").fetchone()
        return int(n), int(longest) // 4

    def texts(self) -> Iterator[np.ndarray]:
        """The tokens of each text, in the order of their numbers, which begin at 1."""
        for (raw,) in self._db.execute("SELECT tokens FROM texts ORDER BY id"):
            yield np.frombuffer(raw, np.int32)

    def width(self, source: int) -> int:
        """One more than the largest index of `source`."""
        tables = ("neurons", "examples", "said")
        most = [self._db.execute(f"SELECT MAX(latent) FROM {t} WHERE source = ?", (source,)).fetchone()[0] for t in tables]
        return max((m for m in most if m is not None), default=-1) + 1

    def latents(self, source: int) -> Iterator[Staged]:
        """Every latent of `source` that anything is known of, by number."""
        self._db.executescript(_BY_LATENT)
        order = "WHERE source = ? ORDER BY latent"
        neurons = self._db.execute(f"SELECT latent, row FROM neurons {order}", (source,))
        examples = _grouped(self._db.execute(f"SELECT latent, row FROM examples {order}, rowid", (source,)), StagedExample)
        said = _grouped(self._db.execute(f"SELECT latent, row FROM said {order}, rowid", (source,)), Description)
        own = ((latent, [msgspec.msgpack.decode(row, type=StagedNeuron)]) for latent, row in neurons)
        yield from _joined(own, examples, said)


def _index(latent: int) -> int:
    if not 0 <= latent < LARGEST_INDEX:
        raise ValueError(f"index {latent} is no latent's: they go from 0 to {LARGEST_INDEX - 1:,}")
    return latent


def _grouped(rows: Iterable[tuple[int, bytes]], kind: type) -> Iterator[tuple[int, list]]:  # type: ignore[type-arg]
    for latent, found in groupby(rows, key=itemgetter(0)):
        yield latent, [msgspec.msgpack.decode(row, type=kind) for _, row in found]


def _joined(*streams: Iterator[tuple[int, list]]) -> Iterator[Staged]:  # type: ignore[type-arg]
    """Three ascending streams by latent as one."""
    heads = [next(s, None) for s in streams]
    while any(heads):
        latent = min(head[0] for head in heads if head)
        found = []
        for i, head in enumerate(heads):
            here = head is not None and head[0] == latent
            found.append(head[1] if head and here else [])
            heads[i] = next(streams[i], None) if here else head
        own, examples, said = found
        yield Staged(latent, own[0] if own else None, examples, said)
