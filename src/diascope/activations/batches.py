"""Which rows a step sees: a pure function of (layout, batch size, seed, step), whoever reads.

1. An epoch takes the runs in a keyed order and parts them into windows of at most W rows.
2. In a window all K runs are open at once, each a lane; the stream takes from every lane in proportion to its length, so
   all of them end together. A lane is read from front to back (its file is permuted already), from a keyed place on, so that
   the next epoch puts other rows side by side.
3. A batch is the next `batch` rows of the stream; it may straddle windows and epochs, so no row is skipped.

Two rows of one document, which lie in one run, meet in a batch of B as rarely as in an exact shuffle of W = K * run_rows rows:
C(B, 2) (L - 1) / (W - 1) pairs for documents of L rows. Runs of 2^20 rows, eight at a time, mix like an exact shuffle of 2^23.
"""

from __future__ import annotations

import numpy as np

from diascope import rng
from diascope.activations.layout import Layout

WINDOW = 2**24  # rows; Gemma Scope 2 mixed about 10^6 buckets


def windows(layout: Layout, window: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The runs of each window of an epoch, in order of reading."""
    order = rng.generator(seed, "runs", epoch).permutation(len(layout.counts))
    most = max(1, int(window // max(layout.counts.max(), 1)))  # whole runs of at most `window` rows together
    return np.array_split(order, -(-len(order) // most))  # as even as can be: a last window of few runs would mix badly


def opened_by(layout: Layout, window: int, seed: int, number: int) -> np.ndarray:
    """The runs of window `number` of the stream, in which every epoch has as many."""
    epoch, w = divmod(number, len(windows(layout, window, seed, 0)))
    return windows(layout, window, seed, epoch)[w]


class Batches:
    """Rows of the layout by step; `keep` [rows] bool says which are used at all, None for all."""

    def __init__(
        self, layout: Layout, batch: int, epochs: float, seed: int, *, window: int = WINDOW, keep: np.ndarray | None = None
    ) -> None:
        self.layout, self.seed, self.window, self.keep = layout, seed, window, keep
        before = layout.starts if keep is None else np.concatenate([[0], np.cumsum(keep)])[layout.starts]
        self._used = np.diff(before)  # rows in use a run
        self.total = int(self._used.sum())
        if self.total < 2:
            raise ValueError(f"{self.total} rows are too few to train on: harvest more text")
        self.batch = min(batch, self.total)
        self.steps = max(1, int(epochs * self.total / self.batch))
        self._plan: tuple[int, list[np.ndarray], np.ndarray] = (-1, [], np.zeros(1))
        self.windows = 1 + self.reach(self.steps - 1)  # windows of the stream that are read at all
        self._stream: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.zeros(0))

    def __getitem__(self, step: int) -> np.ndarray:
        """Row numbers [batch] of `step`."""
        parts, place, left = [], step * self.batch, self.batch
        while left:
            epoch, here = divmod(place, self.total)
            _, ends = self._windows(epoch)
            w = int(np.searchsorted(ends, here, side="right")) - 1
            part = self._rows(epoch, w)[here - int(ends[w]) :][:left]
            parts.append(part)
            place, left = place + len(part), left - len(part)
        return np.concatenate(parts)

    def place(self, step: int) -> int:
        """The window of the stream, counted over all epochs, in which the first row of `step` lies."""
        return self._window_of(step * self.batch)

    def reach(self, step: int) -> int:
        """The window in which the last row of `step` lies."""
        return self._window_of((step + 1) * self.batch - 1)

    def _window_of(self, row: int) -> int:
        epoch, here = divmod(row, self.total)
        parts, ends = self._windows(epoch)
        return epoch * len(parts) + int(np.searchsorted(ends, here, side="right")) - 1

    def first(self) -> np.ndarray:
        """All rows of the first window, ascending: on them starting weights and scales are found."""
        return np.sort(self._rows(0, 0))

    def first_runs(self) -> np.ndarray:
        """The runs of the first window, ascending."""
        return np.sort(self._windows(0)[0][0])

    def _windows(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The windows of an epoch, and where each starts in its stream, with the end."""
        if self._plan[0] != epoch:
            parts = windows(self.layout, self.window, self.seed, epoch)
            self._plan = epoch, parts, np.concatenate([[0], np.cumsum([self._used[p].sum() for p in parts])])
        return self._plan[1], self._plan[2]

    def _rows(self, epoch: int, w: int) -> np.ndarray:
        """The stream of one window."""
        if self._stream[0] != (epoch, w):
            runs = self._windows(epoch)[0][w]
            lanes = [lane for r in runs if len(lane := self._lane(epoch, int(r)))]
            at = [(np.arange(len(lane)) + (i + 0.5) / len(lanes)) / len(lane) for i, lane in enumerate(lanes)]
            self._stream = (epoch, w), np.concatenate(lanes)[np.argsort(np.concatenate(at), kind="stable")]
        return self._stream[1]

    def _lane(self, epoch: int, run: int) -> np.ndarray:
        order = self.layout.order(run)
        turned = np.roll(order, -(rng.key(self.seed, "turn", epoch, run) % max(len(order), 1)))
        rows = turned + self.layout.starts[run]
        return rows if self.keep is None else rows[self.keep[rows]]
