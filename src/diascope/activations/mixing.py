"""A mixing certificate: how well the order of reading mixes documents, beside an exact shuffle of all rows.

Rows of one document resemble one another, so a batch that holds many of them tells less than its size. With c other rows of
its own document beside each row, and correlation rho between two of those, the variance of a batch mean is (1 + c rho) times
that of independent rows. c is counted over evenly spread batches of the order in use, over as many of an exact shuffle (a keyed
bijection of all rows), and expected for that: (B - 1) sum_d n_d (n_d - 1) / (N (N - 1)).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from diascope import rng
from diascope.activations.batches import Batches
from diascope.activations.rows import Source

SAMPLED = 32  # batches


@dataclass(frozen=True)
class Mixing:
    """Of a batch: its rows, how many documents they come from, and rows of its own document beside each row."""

    batch: int
    batches: int
    documents: float
    documents_exact: float
    companions: float
    companions_exact: float
    companions_expected: float
    window: int

    def data(self) -> dict[str, float | str]:
        """For JSON."""
        return {"format": "diascope-mixing-1", **asdict(self)}


def certificate(source: Source, batches: Batches) -> Mixing:
    """Count over the first epoch's batches; an exact shuffle of the same rows beside."""
    total, size = batches.total, batches.batch
    whole = max(1, total // size)
    steps = np.unique(np.linspace(0, whole - 1, min(SAMPLED, whole)).astype(int))
    rows = np.arange(len(source)) if batches.keep is None else np.flatnonzero(batches.keep)
    document = source.documents(rows)
    shuffle = rng.Bijection(total, batches.seed, "mixing")

    ours = [_count(document[np.searchsorted(rows, batches[s])]) for s in steps.tolist()]
    exact = [_count(document[shuffle(np.arange(s * size, (s + 1) * size) % total)]) for s in steps.tolist()]
    sizes = np.unique(document, return_counts=True)[1].astype(float)
    expected = (size - 1) * float((sizes * (sizes - 1)).sum()) / max(total * (total - 1), 1)
    (d, c), (de, ce) = np.mean(ours, 0).tolist(), np.mean(exact, 0).tolist()
    return Mixing(size, len(steps), d, de, c, ce, expected, batches.window)


def _count(document: np.ndarray) -> tuple[float, float]:
    """Documents among the rows, and other rows of its own document beside the mean row."""
    sizes = np.unique(document, return_counts=True)[1].astype(float)
    return float(len(sizes)), float((sizes * (sizes - 1)).sum() / len(document))
