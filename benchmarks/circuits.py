"""Graphs of the real Gemma 3 270M for twelve prompts, and whether their edges predict what interventions do.

    python benchmarks/circuits.py 'W/dictionaries/transcoder_all--*' [--name transcoders] [--json FILE] [--graphs FOLDER]
    python benchmarks/circuits.py neurons

The prompts were chosen because the model's own likeliest token is right, before any graph was made. For each: a graph of the
likeliest tokens; its closure and scores; the rank correlation and agreement of sign of predicted with measured effects on
the first target, over the strongest latents and over as many drawn at random from the others with an influence of at least
1e-4; and whether ablating the
heaviest supernode moves the first target more than 95 % of matched controls (supernodes.py). Means over prompts with 95 %
intervals by bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import json
import time
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import diascope
from diascope.circuits import TraceConfig, prune, trace, verify
from diascope.circuits.supernodes import Trial, supernodes, tried
from diascope.circuits.trace import NEURONS
from diascope.circuits.verify import subject_of
from diascope.dictionaries import load_dictionary
from diascope.progress import Bars

PROMPTS = (
    ("The capital of Italy is the city of", " Rome"),
    ("The Eiffel Tower is in the city of", " Paris"),
    ("Dallas is a city in the state of", " Texas"),
    ("The opposite of hot is", " cold"),
    ("The opposite of up is", " down"),
    ("black and white, hot and cold, left and", " right"),
    ("one, two, three, four,", " five"),
    ("ten, nine, eight, seven,", " six"),
    ("Monday, Tuesday, Wednesday,", " Thursday"),
    ("One cat, two", " cats"),
    ("Ms Tarkell met Mr Zorin. Later Ms Tark", "ell"),
    ("The code is xq47. I repeat: the code is xq", "4"),
)

KEYS = ("of", "edit", "mode", "guess")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionaries", nargs="+", help="folders, with * if you like, or: neurons")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sample", type=int, default=128, help="latents verified a prompt (default: 128)")
    parser.add_argument("--draws", type=int, default=100, help="matched controls a supernode (default: 100)")
    parser.add_argument("--least", type=float, default=1e-4, help="influence from which a latent is expanded (default: 1e-4)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="only the first so many (default: all)")
    parser.add_argument("--graphs", type=Path, help="also save every graph in this folder")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser.parse_args()


def one(model: Any, given: Any, prompt: str, answer: str, args: argparse.Namespace) -> dict[str, Any]:
    """One prompt's row."""
    began = time.perf_counter()
    g = trace(model, given, prompt, config=TraceConfig(least=args.least))
    traced = time.perf_counter() - began
    assert g.about["targets"][0] == answer, (prompt, g.about["targets"])
    g = verify(g, model, given, sample=args.sample)
    row = {
        "prompt": prompt,
        "answer": answer,
        "probability": _chance(model, prompt),
        "tokens": len(g.tokens),
        "seconds": traced,
    }
    row |= {k: g.about[k] for k in ("latents", "expanded", "closure", "scores")} | {"rows": g.about["verification"]["rows"]}
    small = prune(g)
    if given != NEURONS and (trial := heaviest(small, subject_of(g, model, given), args.draws)):
        row["supernode"] = {"names": [small.name(n) for n in trial.nodes], "effect": trial.effect, "beats": trial.beats,
                            "exceeds": trial.exceeds, "control_95": float(np.quantile(trial.controls, 0.95))}  # fmt: skip
    if args.graphs:
        g.save(args.graphs / "".join(c if c.isalnum() else "-" for c in prompt.lower()))
    return row


def heaviest(small: Any, subject: Any, draws: int) -> Trial | None:
    """The trial of the heaviest supernode whose members all have a match (a cell may hold no other active latent)."""
    for group in supernodes(small):
        try:
            return tried(small, subject, group, draws=draws)
        except ValueError:
            continue
    return None


def _chance(model: Any, prompt: str) -> float:
    return float(model.logits(prompt)[0, -1].softmax(-1).max())


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over prompts of each edit, mode and guess, with a bootstrap interval over prompts."""
    pick, found = np.random.default_rng(0), {}
    for of, edit, mode, guess in {tuple(r[k] for k in KEYS): 0 for row in rows for r in row["rows"]}:
        entry = {}
        for what in ("spearman", "sign"):
            v = np.array([r[what] for row in rows for r in row["rows"] if tuple(r[k] for k in KEYS) == (of, edit, mode, guess)])
            draws = v[pick.integers(0, len(v), (2000, len(v)))].mean(1)
            entry |= {
                what: float(v.mean()),
                f"{what}_low": float(np.quantile(draws, 0.025)),
                f"{what}_high": float(np.quantile(draws, 0.975)),
            }
        found[f"{of}, {edit}, {mode}, {guess}"] = entry
    return found


def main() -> None:
    args, out = arguments(), Console(width=150)
    model = diascope.load_model(args.model, dtype="float32")
    names = [p for name in args.dictionaries for p in (sorted(glob(name)) or [name])]
    given: Any = NEURONS if names == [NEURONS] else [load_dictionary(p) for p in names]
    rows = []
    with Bars(Console(stderr=True)) as bars:
        say = bars.stage("prompts", "prompts")
        for i, (prompt, answer) in enumerate(PROMPTS[: args.prompts]):
            rows.append(one(model, given, prompt, answer, args))
            say(i + 1, args.prompts, prompt)
    table = Table(
        "prompt",
        "answer",
        "p",
        "latents",
        "expanded",
        "s",
        "closure",
        "replacement",
        "completeness",
        "restricted",
        "supernode beats",
        box=None,
    )
    for r in rows:
        s, node = r["scores"], r.get("supernode")
        beats = f"{node['beats']:.2f}{' *' if node['exceeds'] else ''} ({len(node['names'])})" if node else ""
        table.add_row(r["prompt"], repr(r["answer"]), f"{r['probability']:.2f}", f"{r['latents']:,}", str(r["expanded"]), f"{r['seconds']:.1f}",
                      f"{r['closure']:.0e}", f"{s['replacement']:.2f}", f"{s['completeness']:.2f}", f"{s['completeness_restricted']:.2f}", beats)  # fmt: skip
    out.print(table)
    agreed = means(rows)
    table = Table("of", "edit", "mode", "guess", "Spearman", "sign agrees", box=None)
    for name, v in agreed.items():
        cells = (f"{v[w]:.3f} ({v[f'{w}_low']:.3f} to {v[f'{w}_high']:.3f})" for w in ("spearman", "sign"))
        table.add_row(*name.split(", "), *cells)
    out.print(table)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "means": agreed}, indent=1))


if __name__ == "__main__":
    main()
