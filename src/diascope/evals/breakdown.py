"""One dictionary's errors and losses by where in a document, in which text, and in whose mouth its tokens stand.

Squared deviations stay those from the mean of all rows, so the parts' FVUs average, weighted by deviation, to the whole's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from diascope.evals.sums import EDGES, Cells, Tally, ratio
from diascope.models import ROLES


def parts(cells: Cells, domains: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """{"position" | "domain" | "role": {name: mask [C]}} of a text's cells; groups with one part are left out.

    `domains` names the text that each document is from, by the document's name.
    """
    ends = (*(f"-{edge - 1}" for edge in EDGES[1:]), "-")
    out = {"position": {f"{low}{end}": cells.stretch == i for i, (low, end) in enumerate(zip(EDGES, ends, strict=True), 1)}}
    out |= {"domain": {}, "role": {}}
    if domains:
        names = np.array([domains.get(n, "other") for n in cells.names])[cells.document]
        out["domain"] = {d: names == d for d in sorted(set(names))}
    if cells.spoken:
        out["role"] = {r: cells.role == i for i, r in enumerate(ROLES)}
    kept = {g: {n: m for n, m in masks.items() if m.any()} for g, masks in out.items()}
    return {g: masks for g, masks in kept.items() if len(masks) > 1}


def breakdown(tally: Tally, targets: Tally, cells: Cells, domains: Mapping[str, str]) -> dict[str, Any]:
    """{group: {part: {"fvu", "fvu_standardised", "delta_ce": estimate}}}, JSON-ready.

    `tally` holds the sums of the dictionary, `targets` those of what it stands for.
    """
    out: dict[str, Any] = {}
    for group, masks in parts(cells, domains).items():
        out[group] = {}
        for name, here in masks.items():
            docs, rows = cells.document[here], targets["rows"][here]
            found = {
                "fvu": ratio(tally["error"][here], targets["variance"][here], docs, rows),
                "fvu_standardised": ratio(
                    tally["error_standardised"][here], targets["variance_standardised"][here], docs, rows
                ),
            }
            if "delta" in tally and (there := here & (tally["predictions"] > 0)).any():
                n = tally["predictions"][there]
                found["delta_ce"] = ratio(tally["delta"][there], n, cells.document[there], n)
            out[group][name] = {m: asdict(v) for m, v in found.items()}
    return out
