"""Two maps on the same tokens: the difference of their FVU and loss, with the interval of the difference.

Two intervals that overlap say little about a difference: both maps meet the same easy and hard tokens, and that common part
cancels when documents are resampled for the pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diascope.evals.sums import ratio
from diascope.numerics import Estimate


@dataclass(frozen=True)
class Series:
    """What a map did, entry by entry: squared error and variance [n], both also with every dimension divided by its deviation,
    and CE minus the clean model's [m], in nats. An entry is a token, or the sum over `rows` tokens (`predictions` of them for
    losses) of one document."""

    error: np.ndarray
    variance: np.ndarray
    error_standardised: np.ndarray
    variance_standardised: np.ndarray
    documents: np.ndarray
    delta_ce: np.ndarray | None = None
    documents_of_predictions: np.ndarray | None = None
    kl: np.ndarray | None = None  # [m], from the clean model, in nats
    l0: np.ndarray | None = None  # [n], a dictionary's active latents
    rows: np.ndarray | None = None  # [n], tokens of each entry; None: one
    predictions: np.ndarray | None = None  # [m]

    def fvu(self, *, standardised: bool = False) -> Estimate:
        """The map's FVU."""
        pair = (self.error_standardised, self.variance_standardised) if standardised else (self.error, self.variance)
        return ratio(*pair, self.documents, self.rows)


def difference(a: Series, b: Series) -> dict[str, Estimate]:
    """`a` minus `b`: negative where `a` is better. Raises ValueError when they are of different tokens."""
    if not np.array_equal(a.documents, b.documents) or not np.allclose(a.variance, b.variance):
        raise ValueError("the two were not judged on the same tokens and targets: evaluate them in one call")
    standardised = a.error_standardised - b.error_standardised
    out = {
        "fvu": ratio(a.error - b.error, a.variance, a.documents, a.rows),
        "fvu_standardised": ratio(standardised, a.variance_standardised, a.documents, a.rows),
    }
    if a.delta_ce is not None and b.delta_ce is not None and a.documents_of_predictions is not None:
        delta = a.delta_ce - b.delta_ce
        out["delta_ce"] = ratio(delta, counted(delta, a.predictions), a.documents_of_predictions, a.predictions)
    return out


def counted(values: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """How many tokens each entry of `values` stands for: what a mean is divided by."""
    return np.ones_like(values) if counts is None else counts
