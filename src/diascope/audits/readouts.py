"""Readouts: directions that tell the two sides of a contrast apart, candidates at every layer and place, one chosen.

1. Mean difference at every layer and place, on training cases.
2. At the `few` places where it does best on validation cases: logistic regression (evals/probes.py) and linear discriminant
   analysis with Ledoit's and Wolf's shrinkage, too.
3. The best of all on validation cases is the detection readout. It is tested once, on test cases.

A direction that detects need not be one that controls: causal.py chooses its own, and the report gives their cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diascope.audits.statistics import ordered
from diascope.evals.probes import fit
from diascope.sites import Site

FEW = 6


@dataclass(frozen=True)
class Readout:
    """score(x) = x . direction + bias, above 0 for the positive side; read at one site and place."""

    kind: str
    site: Site
    place: str
    direction: np.ndarray  # [d], raw: for a mean difference as long as the difference
    bias: float
    validation: float = float("nan")  # AUROC there

    def score(self, x: np.ndarray) -> np.ndarray:
        """[n] of rows x [n, d] at its site and place."""
        return x.astype(np.float64) @ self.direction + self.bias

    @property
    def unit(self) -> np.ndarray:
        """The direction at length 1."""
        return self.direction / max(float(np.linalg.norm(self.direction)), 1e-30)


def mean_difference(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction and bias of rows x [n, d] with labels y: the difference of the means, half-way between them."""
    a, b = x[y].astype(np.float64).mean(0), x[~y].astype(np.float64).mean(0)
    return a - b, float(-(a - b) @ (a + b) / 2)


def logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression of standardised rows, its strength chosen inside the training rows."""
    probe = fit(x, y.astype(int), standardise=True, balanced=True)
    w = probe.weight / probe.scale
    return w, probe.bias - float(probe.mean @ w)


def lda(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Linear discriminant analysis: covariance shrunk towards a multiple of 1 (Ledoit and Wolf 2004)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(x.astype(np.float64), y)
    return model.coef_[0], float(model.intercept_[0])


FITS = {"mean difference": mean_difference, "logistic": logistic, "LDA": lda}


@dataclass(frozen=True)
class Search:
    """All that was tried, and what was chosen."""

    grid: np.ndarray  # [sites, places], AUROC of the mean difference on validation cases
    candidates: tuple[Readout, ...]  # by falling AUROC on validation cases
    tried: int

    @property
    def best(self) -> Readout:
        return self.candidates[0]

    def of(self, kind: str) -> Readout:
        """The best candidate of one kind."""
        return next(c for c in self.candidates if c.kind == kind)


def search(
    vectors: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    sites: Sequence[Site],
    places: Sequence[str],
    *,
    few: int = FEW,
) -> Search:
    """Candidates from vectors [n, sites, places, d] and labels y [n] (bool); `train` and `validation` are bool [n]."""
    even = np.ones(int(validation.sum()))
    grid = np.empty((len(sites), len(places)))
    found: list[Readout] = []

    def candidate(kind: str, s: int, p: int) -> Readout:
        direction, bias = FITS[kind](vectors[train, s, p], y[train])
        held = vectors[validation, s, p].astype(np.float64) @ direction
        return Readout(kind, sites[s], places[p], direction, bias, float(ordered(y[validation], held)(even)))

    for s in range(len(sites)):
        for p in range(len(places)):
            found.append(candidate("mean difference", s, p))
            grid[s, p] = found[-1].validation
    # of equal places the one in the middle of the model: first layers read words, last ones the next token
    order = sorted(range(len(found)), key=lambda i: (-found[i].validation, abs(found[i].site.layer - 0.6 * len(sites))))
    best = [divmod(i, len(places)) for i in order[:few]]
    found = [found[i] for i in order] + [candidate(kind, s, p) for kind in ("logistic", "LDA") for s, p in best]
    ranked = sorted(found, key=lambda c: -c.validation)
    return Search(grid, tuple(ranked), len(found))
