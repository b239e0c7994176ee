"""The field's basic quantities, each written once: mergeable moments, FVU, ridge, and intervals over documents.

FVU is the fraction of variance unexplained about the *global* mean of the target,

    FVU = sum_rows |y - y_hat|^2 / sum_rows |y - mu|^2,

summed in float64. Per-token or per-batch variants of the same name differ by up to 30 % on one dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Moments:
    """Count, mean and centred sum of squares a dimension, in float64; two of them merge exactly (Chan et al. 1979)."""

    n: int
    mean: Tensor  # [d]
    m2: Tensor  # [d], sum of (x - mean)^2

    @classmethod
    def empty(cls, d: int) -> Moments:
        return cls(0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64))

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """The moments of `rows` [n, d]."""
        total = cls.empty(rows.shape[1])
        for part in rows.split(max(1, 2**17 // rows.shape[1])):  # 1 MB at a time: float64 stays in the cache
            x = part.to(torch.float64)
            mean = x.mean(0)
            total = total.merge(cls(len(x), mean, x.sub_(mean).square_().sum(0)))
        return total

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        n = self.n + other.n
        if n == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + delta.square() * (self.n * other.n / n))

    @property
    def mean_square(self) -> float:
        """E|x|^2, the mean squared norm of a row."""
        return float(self.mean.square().sum() + self.m2.sum() / max(self.n, 1))

    @property
    def variance(self) -> Tensor:
        """The population variance a dimension [d]."""
        return self.m2 / max(self.n, 1)


@dataclass(frozen=True)
class Estimate:
    """A number with what it takes to believe it: how many rows, how many documents, and a 95 % interval."""

    value: float
    n: int
    documents: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def plus_minus(self) -> str:
        """The number and half the width of its interval, for tables."""
        digits = 3 if abs(self.value) < 10 else 1
        return f"{self.value:.{digits}f} ± {(self.high - self.low) / 2:.{digits}f}"


def ratio_over_documents(
    numerator: np.ndarray, denominator: np.ndarray, documents: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> Estimate:
    """sum(numerator) / sum(denominator) with a 95 % percentile interval from resampling whole documents.

    All three are [rows]. Rows of one document are not independent, so documents are the unit that is resampled
    (cluster bootstrap; Davison and Hinkley 1997, section 3.8). A mean is the ratio with denominator 1.
    """
    _, group = np.unique(documents, return_inverse=True)
    n_docs = int(group.max()) + 1 if len(group) else 0
    num = np.bincount(group, numerator.astype(np.float64), n_docs)
    den = np.bincount(group, denominator.astype(np.float64), n_docs)
    value = float(num.sum() / den.sum()) if den.sum() else float("nan")
    if n_docs < 2:
        return Estimate(value, len(numerator), n_docs, float("nan"), float("nan"))
    counts = np.random.Generator(np.random.Philox(key=seed)).multinomial(n_docs, np.full(n_docs, 1 / n_docs), size=draws)
    below = counts @ den
    ratios = np.divide(counts @ num, below, out=np.full(draws, np.nan), where=below != 0)
    low, high = np.nanpercentile(ratios, [2.5, 97.5]) if np.isfinite(ratios).any() else (np.nan, np.nan)
    return Estimate(value, len(numerator), n_docs, float(low), float(high))


def shares_over_documents(
    counts: np.ndarray, rows: np.ndarray, holds: Callable[[np.ndarray, np.ndarray], np.ndarray], documents: int
) -> Estimate:
    """The share of latents for which `holds(firings, rows)` is true, with a 95 % interval by the delete-a-group jackknife.

    counts [G, S] and rows [G] are the firings of each latent, and the rows, in each group of documents. (A bootstrap would
    not do: a resample sees fewer different documents, so more latents look dead.) Shao and Wu 1989.
    """
    total, n, G = counts.sum(0), int(rows.sum()), len(counts)
    value = float(holds(total, np.array(n)).mean())
    if G < 2:
        return Estimate(value, n, documents, float("nan"), float("nan"))
    without = np.array([holds(total - c, np.array(n - r)).mean() for c, r in zip(counts, rows, strict=True)])
    error = 1.96 * float(np.sqrt((G - 1) / G * np.square(without - without.mean()).sum()))
    return Estimate(value, n, documents, max(0.0, value - error), min(1.0, value + error))


def discoveries(p: np.ndarray) -> np.ndarray:
    """q of p-values [n]: the false discovery rate at which each would be called (Benjamini and Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p) if len(p) else p


def deviations(y: Tensor) -> Tensor:
    """Standard deviation a dimension of rows y [n, d], infinite where it does not vary: divided by it, such a dimension counts nothing.

    Gemma 3 has norm gains of exactly zero, so that an MLP's output may be constant in a dimension, where any error over its
    deviation would be endless.
    """
    sd = y.std(0)
    return torch.where(sd > 1e-6 * sd.square().mean().sqrt(), sd, torch.inf)


def ridge(xx: Tensor, xy: Tensor, strength: float = 1e-4) -> Tensor:
    """argmin_A |Y - X A|^2 + strength * mean diagonal of X^T X * |A|^2, from xx = X^T X and xy = X^T Y of centred rows, float64."""
    xx = xx.double()
    eye = torch.eye(len(xx), dtype=torch.float64)
    return torch.linalg.solve(xx + strength * xx.diagonal().mean() * eye, xy.double())
