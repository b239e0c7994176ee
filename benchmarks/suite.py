"""One pass that trains a dictionary a layer, over one run a layer that stops at its layer: time.

    python benchmarks/suite.py [--model gemma-3-270m] [--tokens 16384] [--latents 4096] [--l0 32] [--rounds 1] [--json]

Each run harvests its residuals (the model stops after the deepest layer asked for) and trains BatchTopK SAEs on them, one epoch,
fp32; no evaluation, no index. A round is the one pass and every single run once, the pass in the middle of them. Ratio: the
pass over the sum of the single runs, the median over rounds. The model is open before either begins.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from diascope.dictionaries import BatchTopK
from diascope.harvest import Harvest, harvest
from diascope.models import Model, load_model
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import scaled
from diascope.tokens import Sequences, open_corpus, pack
from diascope.training import MemberRecipe, train_group


def run(model: Model, sequences: Sequences, layers: list[int], args: argparse.Namespace) -> tuple[float, float]:
    """Seconds of harvest and of training of one run."""
    members = tuple(
        MemberRecipe(
            f"L{i}",
            f"L{i}.resid_post",
            f"L{i}.resid_post",
            d_sae=args.latents,
            activation=BatchTopK(args.l0),
            matryoshka=None,
            l0_target=float(args.l0),
        )
        for i in layers
    )
    recipe = scaled(members, args.tokens, epochs=1.0)
    folder = Path(tempfile.mkdtemp())
    try:
        began = time.perf_counter()
        reader = harvest(model, sequences, Harvest(tuple(f"L{i}.resid_post" for i in layers)), folder / "spool")
        harvested = time.perf_counter()
        train_group(recipe, reader, folder / "training", model=args.model)
        return harvested - began, time.perf_counter() - harvested
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m", help="the subject (default: gemma-3-270m)")
    parser.add_argument("--tokens", type=int, default=16_384, help="tokens of every run (default: 16384)")
    parser.add_argument("--latents", type=int, default=4096, help="latents of every dictionary (default: 4096)")
    parser.add_argument("--l0", type=int, default=32, help="active latents a token (default: 32)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    args = parser.parse_args()
    model = load_model(args.model, dtype="auto")
    sequences = pack(model, open_corpus("wikipedia-sample").documents, context=512, max_tokens=args.tokens)
    every = list(range(model.n_layers))
    half = len(every) // 2
    order = [*([i] for i in every[:half]), every, *([i] for i in every[half:])]
    run(model, sequences.part(0, 8), [0], args)  # compiles
    passes, singles = [], []
    with Bars(Console(stderr=True)) as bars:
        say = bars.stage("runs", "runs")
        for r in range(args.rounds):
            found = []
            for n, layers in enumerate(order):
                found.append(run(model, sequences, layers, args))
                say(
                    r * len(order) + n + 1,
                    args.rounds * len(order),
                    f"{found[-1][0]:.0f} s harvest, {found[-1][1]:.0f} s training",
                )
            passes.append(found[half])
            singles.append(np.sum([f for n, f in enumerate(found) if n != half], 0))
    one, many = np.median(passes, 0), np.median(singles, 0)
    report = {
        "ratio": float(np.median([sum(a) / sum(b) for a, b in zip(passes, singles, strict=True)])),
        "one pass": one.tolist(),
        "single runs": many.tolist(),
    }
    if args.json:
        print(json.dumps(report))
        return
    t = Table(
        "",
        "harvest s",
        "training s",
        title=f"{len(every)} dictionaries of {args.latents}: one pass takes {report['ratio']:.2f} of the time",
    )
    for name in ("one pass", "single runs"):
        t.add_row(name, *(f"{s:.0f}" for s in report[name]))
    Console(width=100).print(t)


if __name__ == "__main__":
    main()
