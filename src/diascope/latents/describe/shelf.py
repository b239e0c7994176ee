"""Descriptions in an index: one JSON file a source, found by latent or by words. Needs no torch.

    sources/<k>/descriptions.json   {"format", "latents": {latent: [{"by", "text", "scores"}, ...]}}

The first description of a latent is the one that is shown. Words are looked up in a table that SQLite builds in memory at the
first search (FTS5, Porter stems, BM25): what is on the disk stays plain JSON with a hash.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from diascope.storage.files import commit_file, reading
from diascope.storage.seals import resealed

FORMAT = "diascope-descriptions-1"
NAME = "descriptions.json"
TEMPLATE = "template"  # who wrote a description that needs no judge


class Description(msgspec.Struct, frozen=True):
    """A description of one latent: who wrote it, its text, and its scores where it was scored."""

    by: str
    text: str
    scores: dict[str, float] = {}


class _File(msgspec.Struct):
    format: str
    latents: dict[int, list[Description]]


class Shelf:
    """All descriptions of one source."""

    def __init__(self, latents: Mapping[int, Sequence[Description]]) -> None:
        self.latents = {j: list(found) for j, found in latents.items() if found}
        self._table: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Shelf:
        """The shelf of the source in `folder`; an empty one where nothing was described. ValueError for a damaged file."""
        path = folder / NAME
        if not path.exists():
            return cls({})
        with reading(path, "describe its latents again"):
            data = msgspec.json.decode(path.read_bytes(), type=_File)
        if data.format != FORMAT:
            raise ValueError(f"{path} has format {data.format!r}, this version reads {FORMAT}: describe its latents again")
        return cls(data.latents)

    def of(self, latent: int) -> list[Description]:
        """The descriptions of `latent`, the one to be shown first; none where it has none."""
        return self.latents.get(latent, [])

    def search(self, text: str) -> list[int]:
        """Latents whose descriptions hold every word of `text` (or one that begins so), best match first.

        What has no word in it, such as a comma or an arrow, is looked for as it stands. Raises ValueError for an empty text.
        """
        text = text.strip()
        if not text:
            raise ValueError("say what to look for: the text is empty")
        words = re.findall(r"\w+", text)
        if not words:
            return sorted(j for j, found in self.latents.items() if any(text in d.text for d in found))
        query = " ".join(f'"{word}"*' for word in words)  # quoted: none of FTS5's own syntax comes from outside
        with self._lock:
            rows = self._words().execute("SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY rank, rowid", (query,))
            return [int(row[0]) for row in rows]

    def _words(self) -> sqlite3.Connection:
        if self._table is None:
            table = sqlite3.connect(":memory:", check_same_thread=False)
            try:
                table.execute("CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='porter unicode61 remove_diacritics 2')")
            except sqlite3.OperationalError as error:
                raise ValueError(
                    f"this Python's SQLite has no full-text search ({error}): use another build of Python"
                ) from error
            lines = ((j, "\n".join(d.text for d in found)) for j, found in self.latents.items())
            table.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", lines)
            self._table = table
        return self._table


def write_shelf(path: Path, latents: Mapping[int, Sequence[Description]]) -> None:
    """Write descriptions to `path`, whole or not at all; those without text are left out."""
    kept = {str(j): [msgspec.to_builtins(d) for d in found if d.text] for j, found in sorted(latents.items())}
    data = {"format": FORMAT, "latents": {j: found for j, found in kept.items() if found}}
    with commit_file(path) as work:
        work.write_text(json.dumps(data, ensure_ascii=False, indent=0, sort_keys=True), encoding="utf-8")


def shelve(index: str | Path, source: int, found: Mapping[int, Sequence[Description]]) -> None:
    """Put descriptions into source number `source` of the index folder `index`, before those that are there already.

    A description takes the place of an earlier one by the same writer; other latents and writers are left as they are.
    """
    name = f"sources/{source}/{NAME}"
    before = Shelf.open(Path(index) / "sources" / str(source)).latents
    merged = dict(before)
    for latent, new in found.items():
        writers = {d.by for d in new}
        merged[latent] = [*new, *(d for d in before.get(latent, ()) if d.by not in writers)]
    with resealed(index, name) as path:
        write_shelf(path, merged)
