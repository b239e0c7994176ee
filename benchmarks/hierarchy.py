"""Recipes on worlds whose features are known: what they find, and how much of a parent its children absorb, at equal L0.

    python benchmarks/hierarchy.py [--seeds 21 22 23 24 25] [--rows 1000000] [--json]

Each seed is another world (evals/synthetic.py: 10 parents with 4 children, and 70 features that fire by Zipf's law), on which every
recipe trains a dictionary with the same seed. Settings were chosen on seeds 1 and 2. The table has means over the seeds, and the
paired differences to the plain dictionary with 95 % intervals (t, over seeds).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diascope.activations import RowReader, Rows, RowWriter
from diascope.dictionaries import BatchTopK, JumpReLU, Matryoshka, TopK
from diascope.evals.synthetic import World, absorbed, matched
from diascope.numerics import Estimate
from diascope.progress import Bars
from diascope.sites import Site
from diascope.training import MemberRecipe, TrainingRecipe, train_group

SITE = Site(0, "resid_post")
METRICS = (
    "absorption",
    "f1 of parents' latents",
    "l0",
    "matching cosine",
    "found (cosine > 0.9)",
    "uniqueness",
    "precision",
    "recall",
)


def recipes(k: int) -> dict[str, MemberRecipe]:
    plain = MemberRecipe("plain", str(SITE), str(SITE), d_sae=128, activation=BatchTopK(k), matryoshka=None, l0_target=float(k))
    nested = Matryoshka((16, 32, 64, 128), (1.0,) * 4)
    return {
        "plain": plain,
        "Matryoshka": replace(plain, name="matryoshka", matryoshka=nested),
        "TopK": replace(plain, name="topk", activation=TopK(k)),
        "JumpReLU": replace(plain, name="jumprelu", activation=JumpReLU(bandwidth=0.1)),
    }


def world(seed: int) -> World:
    return World(d=64, features=120, active=3.0, parents=10, children=4, seed=seed)


def spooled(w: World, rows: int, folder: Path) -> RowReader:
    """The world's rows as a spool, which training reads."""
    writer = RowWriter(folder, {"format": "diascope-spool-2", "sites": [str(SITE)], "widths": [w.d]})
    each = 25_000
    for run in range(-(-rows // each)):
        x, _ = w.rows(each, draw=100 + run)
        ids = torch.arange(each)
        writer.write(run, Rows({SITE: x}, ids, ids + run * each, ids, ids))
    return RowReader(folder)


def measured(seed: int, rows: int, k: int, bars: Bars) -> dict[str, dict[str, float]]:
    """{recipe: {metric: value}} in one world."""
    w = world(seed)
    with tempfile.TemporaryDirectory() as folder:
        reader = spooled(w, rows, Path(folder) / "spool")
        run = TrainingRecipe(
            tuple(recipes(k).values()), seed=seed, epochs=2.0, batch=512, lr=2e-3, beta1=0.9, aux_k=16, dead_after=20_000
        )
        trained = train_group(run, reader, Path(folder) / "runs", model="world", progress=bars.stage(f"world {seed}", "rows"))
    names = {r.name: label for label, r in recipes(k).items()}
    out = {}
    for t in trained:
        found = absorbed(t.dictionary, w) | matched(t.dictionary, w)
        out[names[t.recipe.name]] = {
            m: v.value if isinstance(v := found[m], Estimate) else float("nan") if v is None else float(v) for m in METRICS
        }
    return out


def difference(a: list[float], b: list[float]) -> tuple[float, float]:
    """Mean of a - b and half its 95 % interval, Student's t over seeds."""
    from scipy.stats import t

    d = np.subtract(a, b)
    return float(d.mean()), float(t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5) if len(d) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25], help="worlds (default: 21 to 25)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each world (default: 1000000)")
    parser.add_argument("--k", type=int, default=5, help="active latents a row (default: 5, about what is true)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the tables")
    args = parser.parse_args()
    with Bars(Console(stderr=True)) as bars:
        found = {seed: measured(seed, args.rows, args.k, bars) for seed in args.seeds}
    labels = list(recipes(args.k))
    values = {r: {m: [found[s][r][m] for s in args.seeds] for m in METRICS} for r in labels}
    gaps = {r: {m: difference(values[r][m], values["plain"][m]) for m in METRICS} for r in labels[1:]}
    if args.json:
        print(json.dumps({"seeds": args.seeds, "values": values, "minus plain": gaps}))
        return
    table = Table("", *METRICS, title=f"means over {len(args.seeds)} worlds")
    for r in labels:
        table.add_row(r, *(f"{np.mean(values[r][m]):.3f}" for m in METRICS))
    for r in labels[1:]:
        table.add_row(f"{r} - plain", *(f"{d:+.3f} ± {h:.3f}" for d, h in (gaps[r][m] for m in METRICS)))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
