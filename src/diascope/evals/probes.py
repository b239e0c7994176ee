"""Linear probes: logistic regression whose strength is chosen on rows held out of training, and never on the test rows.

As Kantamneni et al. 2025 (arXiv:2502.16681) fit them: L2, inverse strength C from 1e5 down to 1e-5 in ten steps, chosen by AUROC on
the last fifth of the training rows (100 at most), then fitted anew on all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STRENGTHS = tuple(np.logspace(5, -5, 10))
STRENGTHS_DENSE = tuple(np.logspace(1, -5, 7))  # of standardised rows: larger ones take hundreds of steps and win nothing
FEW = 64  # columns up to which Newton's method is several times faster than L-BFGS; at 640 it is slower


@dataclass(frozen=True)
class Probe:
    """score(x) = ((x - mean) / scale) . weight + bias, one number a row; above 0 it says label 1."""

    weight: np.ndarray  # [d]
    bias: float
    mean: np.ndarray  # [d]
    scale: np.ndarray  # [d]

    def score(self, x: np.ndarray) -> np.ndarray:
        """[n] of rows x [n, d]."""
        return ((x - self.mean) / self.scale) @ self.weight + self.bias

    @property
    def direction(self) -> np.ndarray:
        """The unit vector [d] along which raw rows raise the score fastest."""
        v = self.weight / self.scale
        return v / max(float(np.linalg.norm(v)), 1e-30)


def fit(
    x: np.ndarray,
    y: np.ndarray,
    *,
    standardise: bool = False,
    strengths: Sequence[float] | None = None,
    balanced: bool = False,
) -> Probe:
    """A probe for labels y [n] (0 or 1, both present) of rows x [n, d]; `balanced` gives both labels the same weight in sum."""
    if strengths is None:
        strengths = STRENGTHS_DENSE if standardise else STRENGTHS
    x = x.astype(np.float64)
    mean, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if standardise:
        mean, scale = x.mean(0), np.maximum(x.std(0), 1e-12)
        x = (x - mean) / scale
    last = min(len(x) // 5, 100)
    inner, held = slice(0, len(x) - last), slice(len(x) - last, len(x))
    best = strengths[0]
    one = x.shape[1] == 1  # its rows stand in the same order at every strength
    if len(strengths) > 1 and not one and len(set(y[inner])) == len(set(y[held])) == 2:
        best = max(strengths, key=lambda C: auroc(y[held], _scores(_regression(C, x[inner], y[inner], balanced), x[held])))
    model = _regression(best, x, y, balanced)
    return Probe(model.coef_[0], float(model.intercept_[0]), mean, scale)


def _scores(model: Any, x: np.ndarray) -> np.ndarray:
    return x @ model.coef_[0] + model.intercept_[0]


def _regression(C: float, x: np.ndarray, y: np.ndarray, balanced: bool) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of separable rows, whose weights grow without end
        solver = "newton-cholesky" if x.shape[1] <= FEW else "lbfgs"
        return LogisticRegression(C=C, solver=solver, max_iter=1000, class_weight="balanced" if balanced else None).fit(x, y)


def auroc(y: np.ndarray, score: np.ndarray) -> float:
    """The chance that a row of label 1 has the larger score, half for equal ones."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, score))
