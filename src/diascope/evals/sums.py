"""Sums in place of rows: what is measured on tokens is added up by cell, so that memory does not grow with the text.

A cell is what numbers are told apart by later: one document, one stretch of positions, one role. Intervals resample documents,
breakdowns take some cells and leave others, and both need no more than each cell's sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from diascope.models import ROLES
from diascope.numerics import Estimate, ratio_over_documents
from diascope.tokens import Sequences

EDGES = (1, 16, 64, 256, 1024, 4096)  # positions where stretches begin; the BOS is position 0 and never counted


class Cells:
    """The cells of the counted tokens of a text: `of` [N, T] is each token's (-1 where it does not count)."""

    def __init__(self, sequences: Sequences, counted: np.ndarray) -> None:
        stretch, stretches = np.searchsorted(EDGES, sequences.positions, side="right"), len(EDGES) + 1
        role = np.zeros_like(stretch) if sequences.role is None else sequences.role.astype(np.int64)
        key = (sequences.document.astype(np.int64) * stretches + stretch) * len(ROLES) + role
        found, inverse = np.unique(key[counted], return_inverse=True)
        self.of = np.full(counted.shape, -1, np.int32)
        self.of[counted] = inverse
        self.role, rest = found % len(ROLES), found // len(ROLES)  # [C] each
        self.stretch, self.document = rest % stretches, rest // stretches  # stretch i begins at EDGES[i - 1]
        self.spoken = sequences.role is not None
        _, self.rank = np.unique(self.document, return_inverse=True)  # documents by number, without gaps
        self.names = sequences.names

    def __len__(self) -> int:
        return len(self.document)


class Spread:
    """How rows fall into cells: made once for a piece of text, used for every sum over it."""

    def __init__(self, cell: np.ndarray) -> None:
        self.cells, self._place = np.unique(cell, return_inverse=True)

    def __len__(self) -> int:
        return len(self._place)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` [n] in each of `cells`."""
        return np.bincount(self._place, values, len(self.cells))


class Tally:
    """Named sums by cell [C], float64."""

    def __init__(self, cells: int) -> None:
        self._n, self._sums = cells, dict[str, np.ndarray]()

    def add(self, where: Spread, **values: np.ndarray) -> None:
        """Add the values [n] of some rows."""
        for name, v in values.items():
            if name not in self._sums:
                self._sums[name] = np.zeros(self._n)
            self._sums[name][where.cells] += where.sums(np.asarray(v, np.float64))

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def __getitem__(self, name: str) -> np.ndarray:
        """Zeros where nothing was added."""
        return self._sums.get(name, np.zeros(self._n))


def ratio(
    numerator: np.ndarray, denominator: np.ndarray, documents: np.ndarray, counts: Iterable[float] | np.ndarray | None = None
) -> Estimate:
    """sum / sum with its interval over documents, of entries that stand for `counts` tokens each (None: for one)."""
    found = ratio_over_documents(numerator, denominator, documents)
    return found if counts is None else replace(found, n=int(np.sum(np.asarray(counts))))
