"""Which rows a step sees: a pure function of (number of rows, batch size, seed, step)."""

from __future__ import annotations

import numpy as np

from diascope import rng


class Batches:
    """Rows in a fresh keyed permutation each epoch; a batch may straddle two epochs, so that no row is skipped."""

    def __init__(self, rows: np.ndarray, batch: int, epochs: float, seed: int) -> None:
        if len(rows) < 2:
            raise ValueError(f"{len(rows)} rows are too few to train on: harvest more text")
        self.rows, self.batch, self.seed = rows, min(batch, len(rows)), seed
        self.steps = max(1, int(epochs * len(rows) / self.batch))
        self._order: tuple[int, np.ndarray] = (-1, rows)

    def __getitem__(self, step: int) -> np.ndarray:
        """Row numbers [batch] of `step`."""
        first, n = step * self.batch, len(self.rows)
        place = np.arange(first, first + self.batch)
        epoch = place // n
        out = np.empty(self.batch, self.rows.dtype)
        for e in np.unique(epoch):
            out[epoch == e] = self._epoch(int(e))[place[epoch == e] % n]
        return out

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            order = rng.generator(self.seed, "epoch", epoch).permutation(len(self.rows))
            self._order = (epoch, self.rows[order])
        return self._order[1]
