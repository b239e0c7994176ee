"""What a card's metrics, rows and controls are called and mean, and the numbers of one of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diascope.page.numbers import Number, number, words


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


def numbers(row: Mapping[str, Any]) -> dict[str, Number]:
    """All finite numbers of one row of a card, by metric."""
    return {metric: n for metric, entry in row.items() if (n := number(entry)) is not None}
