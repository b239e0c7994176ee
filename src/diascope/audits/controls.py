"""Controls: directions that should do nothing special, as long as the direction that is tested.

    random            uniform on the sphere: says that the direction matters at all
    covariance        drawn from the covariance of the training vectors within each side: says that it matters beyond the busy
                      dimensions
    permuted labels   the difference of means again, of labels permuted inside groups: says that it matters beyond the method

Each is made orthogonal to the tested direction. Both of the last two would otherwise hold a part of it (a difference of means of
permuted labels is a random multiple of the true one plus noise), and to project that out is to project out the direction itself.

The p-value behind a verdict is the largest over the families and over all of them together: a direction has to beat every kind of
control. The wrong sign and the wrong layer are single trials that stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diascope import rng
from diascope.audits.statistics import permutations

LEAST = 199  # controls behind a verdict, of all families: fewer cannot reach p = 0.005
FAMILIES = ("random", "covariance", "permuted labels")


def directions(
    family: str, direction: np.ndarray, x: np.ndarray, y: np.ndarray, groups: Sequence[Any], k: int, *, seed: int = 0
) -> np.ndarray:
    """[k, d] of `family`, as long as `direction` [d]; x [n, d] are the training vectors it came from, y and groups theirs."""
    random = rng.generator(seed, "controls", family)
    if family == "random":
        found = random.standard_normal((k, len(direction)))
    elif family == "covariance":
        inside = x.astype(np.float64) - np.stack([x[y == side].mean(0) for side in y])  # not along what the sides differ in
        found = random.standard_normal((k, len(x))) @ inside
    elif family == "permuted labels":
        found = permuted(x, y, groups, k, seed=seed)
    else:
        raise ValueError(f"there is no family {family!r}: there is {', '.join(FAMILIES)}")
    return beside(found, direction)


def permuted(x: np.ndarray, y: np.ndarray, groups: Sequence[Any], k: int, *, seed: int = 0) -> np.ndarray:
    """[k, d]: the difference of means of rows x [n, d] under labels y permuted inside groups, k times."""
    drawn = permutations(y, np.asarray(groups), draws=k, seed=seed).astype(np.float64)
    weights = drawn / drawn.sum(1, keepdims=True) - (1 - drawn) / (1 - drawn).sum(1, keepdims=True)
    return weights @ x.astype(np.float64)


def beside(found: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Rows of `found` [k, d] without their part along `direction` [d], and as long as it."""
    unit = direction / max(float(np.linalg.norm(direction)), 1e-30)
    return as_long(found - (found @ unit)[:, None] * unit, direction)


def as_long(found: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Rows of `found` [k, d] at the length of `direction`."""
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.maximum(lengths, 1e-30) * float(np.linalg.norm(direction))
