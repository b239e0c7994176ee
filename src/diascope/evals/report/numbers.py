"""Numbers of a card as people read them: value and interval, the names and definitions of metrics, the names of rows.

A card's entry is a number, null, or {"value", "low", "high", "n", ...}; everything else is no number here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval (None where there is none) and how many tokens or items it is of."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    documents: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def number(entry: Any) -> Number | None:
    """A card's entry as a Number; None where it holds no finite one."""
    if isinstance(entry, Mapping):
        value = _finite(entry.get("value"))
        if value is None:
            return None
        low, high = _finite(entry.get("low")), _finite(entry.get("high"))
        whole = {k: int(v) for k in ("n", "documents") if (v := _finite(entry.get(k))) is not None}
        return Number(value, *((low, high) if low is not None and high is not None else (None, None)), **whole)
    value = _finite(entry)
    return None if value is None else Number(value)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def shown(value: float) -> str:
    """A number with as many digits as the card's readers need: 1,234; 59.8; 0.137; 3.2e-05."""
    size = abs(value)
    if size >= 1000 or (size >= 10 and size == int(size)):
        return f"{value:,.0f}".replace("-", "−")
    if size and size < 0.0005:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{1 if size >= 10 else 3}f}".replace("-", "−")


def plus_minus(n: Number) -> str:
    """ "± 0.012", or nothing where there is no interval."""
    if n.half is None:
        return ""
    digits = 1 if max(abs(n.value), n.half) >= 10 else 3
    return "± < 0.001" if digits == 3 and 0 < n.half < 0.0005 else f"± {n.half:.{digits}f}"


@dataclass(frozen=True)
class Metric:
    """How a metric is called, what it means, and which way is better (-1: smaller, 1: larger, 0: neither)."""

    label: str
    definition: str
    better: int = 0


METRICS = {
    "l0": Metric("L0", "mean number of active latents a counted token"),
    "fvu": Metric(
        "FVU", "fraction of variance unexplained: squared error over squared deviation from the mean of the evaluation rows", -1
    ),
    "fvu_no_outliers": Metric("FVU without outliers", "the same without tokens whose norm exceeds three medians", -1),
    "fvu_standardised": Metric(
        "FVU standardised", "the same with every dimension divided by its own deviation, so that no large dimension decides", -1
    ),
    "delta_ce": Metric(
        "ΔCE",
        "what it costs to put the reconstruction in the model's place: cross-entropy minus the clean model's, nats a token",
        -1,
    ),
    "ce": Metric("CE", "cross-entropy with the reconstruction in place, nats a predicted token", -1),
    "kl": Metric("KL", "mean KL divergence from the clean model's predictions, nats", -1),
    "top1": Metric("same first choice", "share of predictions whose most likely token is the clean model's", 1),
    "recovered": Metric(
        "loss recovered", "1 is the clean model, 0 the ablation (the mean vector of training rows); near 1 says little", 1
    ),
    "dead": Metric("dead", "share of latents that never fired in the counted tokens", -1),
    "dense": Metric("dense", "share of latents that fired on more than 10 % of the counted tokens", -1),
}
ROWS = {
    "dictionary": "dictionary",
    "affine_part": "its affine part",
    "ridge": "ridge map",
    "token_pca": "per-token PCA",
    "pca": "fixed PCA",
    "random": "random dictionary",
    "retrained": "retrained",
    "frozen_decoder": "frozen random decoder",
    "random_model": "of a random-weight model",
    "mean": "mean vector",
    "minus ridge": "dictionary minus ridge",
    "clean": "clean model",
}
CONTROLS = {
    "mean": "every token gets the mean vector of the training rows",
    "pca": "projection on the first L0 principal components",
    "token_pca": "every token's own L0 largest PCA coefficients: an orthogonal dictionary that needs no training",
    "random": "random unit directions with the threshold that gives the same L0, and the best scale",
    "retrained": "an ordinary dictionary of this shape, trained for a few hundred steps: what the next two are to be read beside",
    "frozen_decoder": "trained as the retrained one, but with decoder rows that stay random",
    "random_model": "trained as the retrained one, on the model with random weights, and judged there (losses mean nothing there)",
    "ridge": "the least-squares affine map from what the dictionary reads to what it writes",
    "affine_part": "a skip-transcoder without its latents",
}


def label(metric: str) -> str:
    """A metric's name in tables: known ones by their usual names, others by their own words."""
    return METRICS[metric].label if metric in METRICS else words(metric)


def row_name(row: str) -> str:
    """A row's name in panels and tables; a site keeps its own spelling."""
    return ROWS.get(row) or (row if "." in row else words(row))


def words(name: str) -> str:
    """ "mean_full_absorption" as "mean full absorption"."""
    return name.replace("_", " ").strip()


def numbers(row: Mapping[str, Any]) -> dict[str, Number]:
    """All finite numbers of one row of a card, by metric."""
    return {metric: n for metric, entry in row.items() if (n := number(entry)) is not None}
