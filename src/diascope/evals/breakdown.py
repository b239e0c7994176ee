"""One dictionary's errors and losses by where in a document, in which text, and in whose mouth its tokens stand.

Squared deviations stay those from the mean of all rows, so the parts' FVUs average, weighted by deviation, to the whole's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from diascope.evals.paired import Series
from diascope.evals.text import EvalText
from diascope.models import ROLES
from diascope.numerics import ratio_over_documents

EDGES = (1, 16, 64, 256, 1024, 4096)  # positions; the BOS is position 0 and never counted


def parts(text: EvalText, domains: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """{"position" | "domain" | "role": {name: mask [N, T]}} of packed sequences; groups with one part are left out.

    `domains` names the text that each document is from, by the document's name.
    """
    s, counted = text.sequences, text.rows.numpy()
    out: dict[str, dict[str, np.ndarray]] = {"position": {}, "domain": {}, "role": {}}
    for low, high in zip(EDGES, (*EDGES[1:], 2**31 - 1), strict=True):
        name = f"{low}-{high - 1}" if high < 2**31 - 1 else f"{low}-"
        out["position"][name] = (s.positions >= low) & (s.positions < high)
    if domains:
        names = np.array([*(domains.get(n, "other") for n in s.names), ""])  # the last one is padding's
        out["domain"] = {d: names[s.document] == d for d in sorted(set(names) - {""})}
    if s.role is not None:
        out["role"] = {r: s.role == i for i, r in enumerate(ROLES)}
    kept = {g: {n: m for n, m in masks.items() if (m & counted).any()} for g, masks in out.items()}
    return {g: masks for g, masks in kept.items() if len(masks) > 1}


def breakdown(series: Series, text: EvalText, short: EvalText, domains: Mapping[str, str]) -> dict[str, Any]:
    """{group: {part: {"fvu", "fvu_standardised", "delta_ce": estimate}}}, JSON-ready.

    `series` is the dictionary's on `text`, its losses on `short`, the first sequences of it.
    """
    rows, predicts, n = text.rows.numpy(), short.predicts.numpy(), len(short.sequences)
    out: dict[str, Any] = {}
    for group, masks in parts(text, domains).items():
        out[group] = {}
        for name, mask in masks.items():
            here, there = mask[rows], mask[:n][predicts]
            docs = series.documents[here]
            found = {
                "fvu": ratio_over_documents(series.error[here], series.variance[here], docs),
                "fvu_standardised": ratio_over_documents(
                    series.error_standardised[here], series.variance_standardised[here], docs
                ),
            }
            if series.delta_ce is not None and series.documents_of_predictions is not None and there.any():
                delta = series.delta_ce[there]
                found["delta_ce"] = ratio_over_documents(delta, np.ones_like(delta), series.documents_of_predictions[there])
            out[group][name] = {m: asdict(v) for m, v in found.items()}
    return out
