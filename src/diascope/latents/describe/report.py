"""From one line of scores a latent to a report: means over latents with intervals, beside the baseline and the control.

Latents are what is resampled (95 % percentile bootstrap, 1,000 draws): scores of one latent's windows say nothing about the
next latent. `minus template` and `minus shuffled` are paired differences, latent by latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diascope.latents.describe.lines import Lines
from diascope.latents.describe.scorers.score import CHANCE
from diascope.latents.describe.shelf import TEMPLATE, Description
from diascope.numerics import ratio_over_documents
from diascope.storage.files import finite, read_json

Line = Mapping[str, Any]  # {"latent", "rows": {row: {scorer: {value, n, failures}}}, "alone": {scorer: ...}}


def summary(lines: Sequence[Line], rows: Sequence[str]) -> dict[str, Any]:
    """{"scores": {row: {scorer: mean}}, "alone": {scorer: mean}, "differences": {"row minus other": {scorer: mean}}, "chance"}.

    A mean is {value, latents, low, high, judgements, failures}; `failures` are unreadable answers, which counted as wrong.
    """
    by_row = {row: [line["rows"].get(row, {}) for line in lines] for row in rows}
    pairs = [(a, b) for a in rows if a not in ("template", "shuffled") for b in ("template", "shuffled") if b in rows]
    pairs += [("template", "shuffled")] if "shuffled" in rows and len(rows) == 2 else []
    found = {
        "scores": {row: _means(of) for row, of in by_row.items()},
        "alone": _means([line["alone"] for line in lines]),
        "differences": {f"{a} minus {b}": _differences(by_row[a], by_row[b]) for a, b in pairs},
    }
    used = {scorer for of in (*found["scores"].values(), found["alone"]) for scorer in of}
    return finite(found | {"chance": {name: c for name, c in CHANCE.items() if name in used}})


def for_index(folder: str | Path) -> dict[int, list[Description]]:
    """What a finished run in `folder` gives to an index: the judge's descriptions, then the template, with their scores."""
    folder = Path(folder)
    judge = read_json(folder / "describe.json")["judge"]
    rows = {line["latent"]: line["rows"] for line in Lines(folder / "scores.jsonl").read()}
    found = {}
    for line in Lines(folder / "descriptions.jsonl").read():
        scores = rows.get(line["latent"], {})
        found[line["latent"]] = [
            Description(
                TEMPLATE if kind == TEMPLATE else f"{judge}, from {kind}",
                text,
                {name: round(s["value"], 3) for name, s in scores.get(kind, {}).items()},
            )
            for kind, text in line["texts"].items()
        ]
    return found


def _means(of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for scores in of for name in scores)
    return {
        name: _mean([s[name]["value"] for s in of if name in s])
        | {
            "judgements": sum(s[name]["n"] for s in of if name in s),
            "failures": sum(s[name]["failures"] for s in of if name in s),
        }
        for name in names
    }


def _differences(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for x, y in zip(a, b, strict=True) for name in x if name in y)
    return {
        name: _mean([x[name]["value"] - y[name]["value"] for x, y in zip(a, b, strict=True) if name in x and name in y])
        for name in names
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    v = np.asarray(values, np.float64)
    e = ratio_over_documents(v, np.ones_like(v), np.arange(len(v)))
    return {"value": e.value, "latents": e.documents, "low": e.low, "high": e.high}
