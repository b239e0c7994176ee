"""Full-text search of descriptions: an inverted index in NumPy arrays that ranks as SQLite's FTS5 does. Needs no torch.

FTS5 reads the length of every text that it ranks from a B-tree, about a microsecond each: words that stand in a third of a
million descriptions take it 100 ms and more. Here:

1. FTS5 itself takes texts apart into terms (Unicode 6.1, without diacritics, Porter stems), once for every distinct stretch
   between white space, which is no part of any term.
2. A term's postings are the rows that hold it, ascending, and how often. A word that is looked for is the beginning of a term:
   terms are sorted, so those that begin with it lie side by side, and their postings are added up.
3. Rows that hold every word are ranked by BM25 in FTS5's own order of operations (sqlite3, ext/fts5/fts5_aux.c: k1 = 1.2,
   b = 0.75), so that scores and the order among equals are the same to the bit; only what is shown is sorted.
"""

from __future__ import annotations

import math
import sqlite3
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from diascope.latents.order import smallest

TOKENIZER = "porter unicode61 remove_diacritics 2"
K1, B = 1.2, 0.75
RAREST = 1e-6  # the least weight of a word, for those in more than half of the texts


class NoSearch(ValueError):
    """This Python's SQLite was built without full-text search."""


def table(name: str) -> sqlite3.Connection:
    """A connection with one empty FTS5 table `name` of a column `text`, in memory. NoSearch where SQLite has no FTS5."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text, tokenize='{TOKENIZER}')")
    except sqlite3.OperationalError as error:
        raise NoSearch(f"this Python's SQLite has no full-text search ({error}): use another build of Python") from error
    return connection


class Terms:
    """FTS5's own way of taking texts apart. For one thread at a time."""

    def __init__(self) -> None:
        self._table = table("scratch")
        self._table.execute("CREATE VIRTUAL TABLE found USING fts5vocab(scratch, 'instance')")

    def of(self, texts: Iterable[str]) -> list[tuple[bytes, int]]:
        """(term, number of the text) of every term in `texts`, sorted by term."""
        self._table.executemany("INSERT INTO scratch(rowid, text) VALUES (?, ?)", enumerate(texts))
        found = self._table.execute("SELECT term, doc FROM found").fetchall()
        self._table.execute("DELETE FROM scratch")
        return sorted((term.encode(), doc) for term, doc in found)


class Words:
    """The inverted index of n texts, one a latent.

    latents  int64 [n]      whose text each row is, ascending
    lengths  int32 [n]      terms a text
    letters  uint8          the terms in UTF-8, sorted, one after another; term t is letters[ends[t] : ends[t + 1]]
    ends     int64 [V + 1]
    rows     int32          postings of all terms, one after another; those of term t are at starts[t] : starts[t + 1]
    times    int32          how often the term stands there
    starts   int64 [V + 1]
    """

    NAMES = ("latents", "lengths", "letters", "ends", "rows", "times", "starts")

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: arrays[name] for name in self.NAMES}
        self.latents, self.lengths = arrays["latents"], arrays["lengths"]
        self._rows, self._times, self._starts = arrays["rows"], arrays["times"], arrays["starts"]
        if len(self._starts) != len(arrays["ends"]) or len(self._rows) != len(self._times) != self._starts[-1]:
            raise ValueError("its arrays do not fit each other: delete it")
        self._mean = int(self.lengths.sum(dtype=np.int64)) / max(len(self.latents), 1)

    @classmethod
    def build(cls, texts: Mapping[int, str]) -> Words:
        """The index of `texts`, a text a latent. NoSearch where SQLite has no FTS5."""
        latents = np.array(sorted(texts), np.int64)
        stretches: defaultdict[str, int] = defaultdict()
        stretches.default_factory = stretches.__len__
        numbers, counts = array("q"), array("q")
        for j in latents.tolist():
            found = texts[j].split()
            numbers.extend(map(stretches.__getitem__, found))
            counts.append(len(found))
        found = Terms().of(stretches)
        terms = sorted({term for term, _ in found})
        places = {term: t for t, term in enumerate(terms)}
        rows = np.repeat(np.arange(len(latents)), np.array(counts, np.int64))
        term, row = _spread(
            np.array([places[term] for term, _ in found], np.int64),
            np.array([number for _, number in found], np.int64),
            np.array(numbers, np.int64),
            rows,
        )
        n = max(len(latents), 1)
        keys, times = np.unique(term * n + row, return_counts=True)
        return cls(
            {
                "latents": latents,
                "lengths": np.bincount(row, minlength=len(latents)).astype(np.int32),
                "letters": np.frombuffer(b"".join(terms), np.uint8),
                "ends": np.cumsum([0, *map(len, terms)], dtype=np.int64),
                "rows": (keys % n).astype(np.int32),
                "times": times.astype(np.int32),
                "starts": np.searchsorted(keys // n, np.arange(len(terms) + 1)).astype(np.int64),
            }
        )

    def find(self, words: Sequence[bytes], offset: int, limit: int | None, below: int | None) -> tuple[int, list[int]]:
        """(how many latents have every one of `words` as the beginning of a term, those from `offset` on), best match first.

        `words` are terms, not empty; no more than `limit` latents come back, and none from `below` on is counted.
        """
        rows, scores = self._scores(words, below)
        end = len(rows) if limit is None else min(len(rows), offset + limit)
        order = smallest(-scores, end)[offset:]
        return len(rows), self.latents[rows[order]].tolist()

    def _scores(self, words: Sequence[bytes], below: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The rows that hold every word, ascending, and their BM25."""
        postings = {word: self._postings(word) for word in words}
        rarest = min(postings, key=lambda word: len(postings[word][0]))
        rows, often = postings[rarest]
        if below is not None:
            rows = rows[: np.searchsorted(rows, np.searchsorted(self.latents, below))]
        rows = rows.astype(np.intp)
        times = {rarest: often[: len(rows)]}
        for word in postings.keys() - {rarest}:
            dense = np.zeros(len(self.latents), np.int32)
            dense[postings[word][0]] = postings[word][1]
            times[word] = dense[rows]
        held = np.logical_and.reduce([often > 0 for often in times.values()])
        rows, times = rows[held], {word: often[held] for word, often in times.items()}
        if not len(rows):
            return rows, np.zeros(0)
        against = K1 * ((1 - B) + B * self.lengths[rows].astype(np.float64) / self._mean)
        scores = np.zeros(len(rows))
        for word in words:  # in their order, and each as often as it was said: so are FTS5's sums
            often = times[word].astype(np.float64)
            scores += self._weight(len(postings[word][0])) * ((often * (K1 + 1.0)) / (often + against))
        return rows, scores

    def _weight(self, hits: int) -> float:
        weight = math.log((len(self.latents) - hits + 0.5) / (hits + 0.5))
        return weight if weight > 0 else RAREST

    def _postings(self, word: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Rows with a term that begins with `word`, ascending, and how many such terms each has."""
        low = bisect_left(self._terms, word)
        high = bisect_left(self._terms, word + b"\xff")  # which is in no UTF-8
        part = slice(int(self._starts[low]), int(self._starts[high]))
        rows, times = self._rows[part], self._times[part]
        if high - low > 1:
            sums = np.bincount(rows, times)
            rows = np.flatnonzero(sums)
            times = sums[rows].astype(np.int32)
        return rows, times

    @cached_property
    def _terms(self) -> list[bytes]:
        letters, ends = self.arrays["letters"].tobytes(), self.arrays["ends"].tolist()
        return [letters[a:b] for a, b in pairwise(ends)]


def _spread(term: np.ndarray, of: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(term, row) of every term of every text: stretch `of[i]` has `term[i]`, and row `rows[i]` has stretch `numbers[i]`."""
    term = term[np.argsort(of, kind="stable")]
    size = np.bincount(of, minlength=int(numbers.max(initial=-1)) + 1)
    begin = np.cumsum(size) - size
    many = size[numbers]
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return term[np.repeat(begin[numbers], many) + within], np.repeat(rows, many)
