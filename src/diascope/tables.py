"""Evaluation results as terminal tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

COLUMNS = (
    ("l0", "L0"),
    ("fvu", "FVU"),
    ("fvu_no_outliers", "FVU no outl."),
    ("fvu_standardised", "FVU std."),
    ("delta_ce", "ΔCE nats"),
    ("recovered", "recovered"),
    ("kl", "KL"),
    ("dead", "dead"),
    ("dense", "dense"),
)
ROWS = ("dictionary", "affine_part", "ridge", "token_pca", "pca", "random", "mean")
NAMES = {"dictionary": "this dictionary", "affine_part": "its affine part", "token_pca": "per-token PCA", "pca": "fixed PCA"}


def evaluation_table(name: str, card: Mapping[str, Any]) -> Group:
    """One dictionary beside its controls; the interval stands under the dictionary's own numbers."""
    metrics, facts = card["metrics"], card["facts"]
    table = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for _, label in COLUMNS:
        table.add_column(label, justify="right")
    for row in (r for r in ROWS if r in metrics):
        table.add_row(NAMES.get(row, row), *(_value(metrics[row].get(key)) for key, _ in COLUMNS), style="bold" if row == "dictionary" else "")
        if row == "dictionary":
            table.add_row("  95 %", *(_interval(metrics[row].get(key)) for key, _ in COLUMNS), style="dim")
    note = (
        f"{facts['tokens']:,} tokens of {facts['documents']} held-out documents; losses on {facts['predictions']:,} predictions, "
        f"clean CE {metrics['clean']['ce']['value']:.4f}; recovered against the mean vector; {facts['excluded']}."
    )
    return Group(table, Text(note, style="dim"))


def _value(metric: Any) -> str:
    if metric is None:
        return ""
    value = metric["value"] if isinstance(metric, dict) else metric
    return "–" if value is None else f"{value:.4g}" if abs(value) >= 100 else f"{value:.4f}"


def _interval(metric: Any) -> str:
    if not isinstance(metric, dict) or metric["low"] is None:
        return ""
    return f"{metric['low']:.3g}…{metric['high']:.3g}"
