"""The beginning of a sorted order, without sorting the rest of it. Needs no torch."""

from __future__ import annotations

import numpy as np


def smallest(keys: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` smallest of `keys` [N], smallest first and equal ones as they stand: how a stable argsort begins.

    Costs O(N) and the sorting of what is given back. NaN comes last, as NumPy sorts it.
    """
    if count < 1:
        return np.zeros(0, np.int64)
    if count >= len(keys):
        return np.argsort(keys, kind="stable")
    last = np.partition(keys, count - 1)[count - 1]
    if last != last:  # NaN is equal to nothing
        return np.argsort(keys, kind="stable")[:count]
    before = np.flatnonzero(keys < last)
    equal = np.flatnonzero(keys == last)[: count - len(before)]  # may be most of them
    return np.concatenate([before[np.argsort(keys[before], kind="stable")], equal])
