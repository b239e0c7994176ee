"""Where the rows of a source lie: a pure function of how many rows each run has and of a seed.

Rows are numbered in the order of the text, run after run. In a run they are stored in a keyed permutation, the same at all
sites, so that reading a run from front to back is reading it in random order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from diascope import rng

KEPT = 2**25  # rows whose permutations are kept in memory, at 8 bytes a row


def stored_order(seed: int, run: int, rows: int) -> np.ndarray:
    """Which row of the run [rows] stands at each place of its file."""
    return rng.generator(seed, "run", run).permutation(rows).astype(np.int32)


class Layout:
    """`counts[r]` rows in run r, of which run r starts at row `starts[r]`."""

    def __init__(self, counts: Sequence[int], seed: int = 0) -> None:
        self.counts, self.seed = np.asarray(counts, np.int64), seed
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._orders: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    def order(self, run: int) -> np.ndarray:
        """Row of the run at each place of its file [counts[run]]."""
        return self._both(run)[0]

    def places(self, run: int) -> np.ndarray:
        """Place in its file of each row of the run [counts[run]]."""
        return self._both(run)[1]

    def runs_of(self, index: np.ndarray) -> np.ndarray:
        """The run in which each row lies [len(index)]."""
        return np.searchsorted(self.starts, index, side="right") - 1

    def _both(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        if run in self._orders:
            self._orders.move_to_end(run)
            return self._orders[run]
        order = stored_order(self.seed, run, int(self.counts[run]))
        places = np.empty_like(order)
        places[order] = np.arange(len(order), dtype=order.dtype)
        self._orders[run] = order, places
        self._held += len(order)
        while self._held > KEPT and len(self._orders) > 1:
            self._held -= len(self._orders.popitem(last=False)[1][0])
        return order, places
