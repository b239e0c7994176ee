"""Graphs of the real Gemma 3 270M for twelve prompts, and whether their edges predict what interventions do.

    python benchmarks/circuits.py 'W/dictionaries/transcoder_all--*' [--name transcoders] [--json FILE] [--graphs FOLDER]
    python benchmarks/circuits.py neurons

The prompts were chosen because the model's own likeliest token is right, before any graph was made. For each: a graph of the
likeliest tokens; its closure and scores; the rank correlation and agreement of sign of predicted with measured effects on
the first target, over the strongest latents and over as many drawn at random from the others with an influence of at least
1e-4; and whether ablating the
heaviest supernode moves the first target more than 95 % of matched controls (supernodes.py). Means over prompts with 95 %
intervals by bootstrap over prompts.

    python benchmarks/circuits.py 'W/dictionaries/transcoder_all--*' --swaps

instead swaps between prompts of one length that differ in a word or more (SWAPS): all latents of one layer at one position take the
values that they have in the other prompt, for every layer and every position from the first that differs. Predicted changes
of the first target (direct edges; all paths; the whole model's gradient times the change that is written) against measured ones; and how much of the difference between the prompts
passes through all MLPs of one position, their latents and their errors.
"""

from __future__ import annotations

import argparse
import json
import time
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import diascope
from diascope.circuits import Place, TraceConfig, trace, verify
from diascope.circuits.effects import MODES, gradients, latent_ids
from diascope.circuits.held import difference, foreseen, hold
from diascope.circuits.replacement import Dictionaries
from diascope.circuits.subject import subject_of
from diascope.circuits.swap import values
from diascope.circuits.trace import NEURONS
from diascope.circuits.verify import agreement
from diascope.dictionaries import load_dictionary
from diascope.models.frozen import frozen_pass
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

SWAPS = (  # chosen for their equal length, before anything was measured
    ("The capital of Italy is the city of", "The capital of France is the city of"),
    ("Dallas is a city in the state of", "Chicago is a city in the state of"),
    ("The opposite of hot is", "The opposite of up is"),
    ("The opposite of up is", "The opposite of hot is"),
    ("black and white, hot and cold, left and", "black and white, hot and cold, up and"),
    ("one, two, three, four,", "two, three, four, five,"),
    ("ten, nine, eight, seven,", "nine, eight, seven, six,"),
    ("Monday, Tuesday, Wednesday,", "Tuesday, Wednesday, Thursday,"),
    ("One cat, two", "One dog, two"),
    ("The code is xq47. I repeat: the code is xq", "The code is xq93. I repeat: the code is xq"),
)

KEYS = ("of", "edit", "mode", "guess")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionaries", nargs="+", help="folders, with * if you like, or: neurons")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sample", type=int, default=128, help="latents verified a prompt (default: 128)")
    parser.add_argument("--draws", type=int, default=100, help="matched controls a supernode (default: 100)")
    parser.add_argument("--least", type=float, default=1e-4, help="influence from which a latent is expanded (default: 1e-4)")
    parser.add_argument("--skip", type=int, default=0, help="leave the first so many prompts out (default: 0)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="at most so many (default: all)")
    parser.add_argument("--swaps", action="store_true", help="swaps between prompts, instead of ablations")
    parser.add_argument("--graphs", type=Path, help="also save every graph in this folder")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser.parse_args()


def one(model: Any, given: Any, prompt: str, answer: str, args: argparse.Namespace) -> dict[str, Any]:
    """One prompt's row."""
    began = time.perf_counter()
    g = trace(model, given, prompt, config=TraceConfig(least=args.least))
    traced = time.perf_counter() - began
    assert g.about["targets"][0] == answer, (prompt, g.about["targets"])
    g = verify(g, model, given, sample=args.sample, draws=args.draws)
    row = {
        "prompt": prompt,
        "answer": answer,
        "probability": _chance(model, prompt),
        "tokens": len(g.tokens),
        "seconds": traced,
    }
    row |= {k: g.about[k] for k in ("latents", "expanded", "closure", "scores")} | {"rows": g.about["verification"]["rows"]}
    if "effect" in (trial := g.about["verification"].get("supernode", {})):
        row["supernode"] = trial
    if args.graphs:
        g.save(args.graphs / "".join(c if c.isalnum() else "-" for c in prompt.lower()))
    return row


def _chance(model: Any, prompt: str) -> float:
    return float(model.logits(prompt)[0, -1].softmax(-1).max())


def swaps(model: Any, given: Any, prompt: str, other: str, args: argparse.Namespace) -> dict[str, Any]:
    """One pair's row: predicted and measured swaps of all latents of a layer at a position."""
    began = time.perf_counter()
    g = trace(model, given, prompt, config=TraceConfig(least=args.least))
    subject = subject_of(g, model, given)
    here, there = subject.replacement, Dictionaries(frozen_pass(model, other), given)
    assert isinstance(here, Dictionaries) and here.frozen.length == there.frozen.length, (prompt, other)
    T, before, c = here.frozen.length, here.frozen.last[-1], subject.covectors[0]
    first = int((here.frozen.tokens != there.frozen.tokens).nonzero()[0])
    at, ids = {p: p for p in range(T)}, latent_ids(g, here)[g.row]
    columns: dict[str, list[float]] = {name: [] for name in ("direct", "total", "gradient", *MODES)}
    slope = gradients(here.frozen, c)
    for place in (Place(layer, p, "latents") for layer in range(here.frozen.n_layers) for p in range(first, T)):
        held = values(here, there, [place], at)
        found = {"direct": foreseen(here, held), "total": foreseen(here, held, ids[ids >= 0])}
        for name, h in found.items():
            columns[name].append(float(h[-1] @ c))
        columns["gradient"].append(sum(float((slope[l] * v).sum()) for l, v in difference(here, held).items()))
        for mode in MODES:
            columns[mode].append(float((hold(here, held, mode)[-1] - before) @ c))
    rows = [
        {"of": "layer and position", "edit": "swap", "mode": mode, "guess": guess}
        | agreement(torch.tensor(columns[guess]), torch.tensor(columns[mode]))
        for mode in MODES
        for guess in ("total", "direct", "gradient")
    ]
    whole, through = passing(here, there, c, first)
    return {
        "prompt": prompt, "other": other, "target": g.about["targets"][0], "swaps": len(columns["free"]), "whole": whole, "rows": rows,
        "through": through, "seconds": time.perf_counter() - began, "columns": columns,
    }  # fmt: skip


def passing(here: Dictionaries, there: Dictionaries, c: torch.Tensor, first: int) -> tuple[float, list[dict[str, Any]]]:
    """The target's difference between the prompts; and what share of it swapping all layers at each position makes, of
    everything that MLPs write there, of their latents alone, and of the errors alone."""
    T, before = here.frozen.length, here.frozen.last[-1]
    whole = float((there.frozen.last[-1] - before) @ c)
    found = []
    for p in range(first, T):
        row: dict[str, Any] = {"token": here.frozen.model.tokenizer.decode([int(here.frozen.tokens[p])])}
        for what in ("all", "latents", "error"):
            held = values(here, there, [Place(None, p, what)], {p: p})
            row[what] = float((hold(here, held, "free")[-1] - before) @ c) / whole
        found.append(row)
    return whole, found


def swap_table(rows: list[dict[str, Any]]) -> Table:
    """A row a pair: the difference between the prompts, how much of it passes the MLPs of one position, correlations."""
    table = Table(
        "prompt",
        "from",
        "target",
        "whole",
        "through",
        "latents",
        "errors",
        "swaps",
        "Spearman free",
        "norms frozen",
        "s",
        box=None,
    )
    for r in rows:
        found = {row["mode"]: row for row in r["rows"] if row["guess"] == "total"}
        best = max(r["through"], key=lambda row: abs(row["all"]))
        shares = f"{best['all']:.2f} at {best['token']!r}", f"{best['latents']:.2f}", f"{best['error']:.2f}"
        cells = (f"{found[m]['spearman']:.2f}" for m in ("free", "norms frozen"))
        table.add_row(
            r["prompt"],
            r["other"],
            repr(r["target"]),
            f"{r['whole']:+.2f}",
            *shares,
            str(r["swaps"]),
            *cells,
            f"{r['seconds']:.0f}",
        )
    return table


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


def graph_table(rows: list[dict[str, Any]]) -> Table:
    """A row a prompt: size, closure, scores, and the supernode's trial."""
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
        beats = f"{node['beats']:.2f}{' *' if node['exceeds'] else ''} ({len(node['latents'])})" if node else ""
        table.add_row(r["prompt"], repr(r["answer"]), f"{r['probability']:.2f}", f"{r['latents']:,}", str(r["expanded"]), f"{r['seconds']:.1f}",
                      f"{r['closure']:.0e}", f"{s['replacement']:.2f}", f"{s['completeness']:.2f}", f"{s['completeness_restricted']:.2f}", beats)  # fmt: skip
    return table


def main() -> None:
    args, out = arguments(), Console(width=150)
    model = diascope.load_model(args.model, dtype="float32")
    names = [p for name in args.dictionaries for p in (sorted(glob(name)) or [name])]
    given: Any = NEURONS if names == [NEURONS] else [load_dictionary(p) for p in names]
    chosen = (SWAPS if args.swaps else PROMPTS)[args.skip : args.skip + args.prompts]
    rows = []
    with Bars(Console(stderr=True)) as bars:
        say = bars.stage("prompts", "prompts")
        for i, (prompt, answer) in enumerate(chosen):
            rows.append((swaps if args.swaps else one)(model, given, prompt, answer, args))
            say(i + 1, len(chosen), prompt)
    if args.swaps:
        out.print(swap_table(rows))
    else:
        out.print(graph_table(rows))
        passed = sum(r["supernode"]["exceeds"] for r in rows if "supernode" in r)
        out.print(f"supernodes above the 95th percentile of matched controls: {passed} of {len(rows)}")
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
