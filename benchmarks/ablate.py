"""Vary one field of the demo's recipe over several seeds, and judge on text that no headline number is taken from.

    python benchmarks/ablate.py metric_power 0 0.75 1 --tokens 131072 --seeds 0 1 2 --workspace DIR

The rows are harvested once; every value and seed trains one SAE on L12.resid_post (or, with --site, another member of
the demo) on them; L0, FVU and delta CE are measured on the dev passages (about 1 % of which also set the thresholds),
while the demo's tables use the test passages.
Results are appended to DIR/<field>.jsonl, and what stands there is not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
from rich.console import Console
from rich.table import Table

from diascope.config import config_hash, from_data
from diascope.evals import evaluate
from diascope.numerics import Estimate
from diascope.progress import Bars
from diascope.recipes.demo import demo
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.tokens import open_corpus, pack
from diascope.training import MemberRecipe, TrainingRecipe, train_group

METRICS = ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", help="a field of MemberRecipe or TrainingRecipe")
    parser.add_argument("values", nargs="+", help='its values, as JSON; a choice is {"type": "JumpReLU", ...}')
    parser.add_argument("--member", default="sae", choices=("sae", "transcoder"), help="which of the demo's two (default: sae)")
    parser.add_argument("--tokens", type=int, default=131_072, help="tokens harvested (default: 131072)")
    parser.add_argument("--eval-tokens", type=int, default=8_192, help="tokens for all metrics (default: 8192)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fixed", nargs="+", default=[], metavar="FIELD=VALUE", help="other fields, the same for every value")
    parser.add_argument("--workspace", type=Path, default=Path("ablation"))
    return parser.parse_args()


def alone(recipe: RunRecipe, member: str, seed: int) -> RunRecipe:
    """The demo with one of its members and another seed."""
    chosen = tuple(m for m in recipe.training.members if m.name == member)
    return replace(recipe, training=replace(recipe.training, members=chosen, seed=seed))


def varied(recipe: RunRecipe, field: str, value: object) -> RunRecipe:
    """`recipe`, of one member, with one field of that member or of its training changed."""
    (chosen,) = recipe.training.members
    kind = MemberRecipe if field in {f.name for f in fields(MemberRecipe)} else TrainingRecipe
    if field not in get_type_hints(kind):
        raise SystemExit(f"neither MemberRecipe nor TrainingRecipe has a field {field}")
    change = {field: from_data(get_type_hints(kind)[field], value)}
    if kind is MemberRecipe:
        chosen, change = replace(chosen, **change), {}
    return replace(recipe, training=replace(recipe.training, members=(chosen,), **change))


def one(run: Run, recipe: RunRecipe, folder: Path, eval_tokens: int, bars: Bars, title: str) -> dict[str, object]:
    """Train and judge one dictionary."""
    trained = train_group(
        recipe.training, run.harvest(), folder, model=recipe.model, calibration=run.calibration_rows, progress=bars.stage(title, "rows")
    )  # fmt: skip
    documents = open_corpus("wikipedia-passages-dev").documents
    sequences = pack(run.model, documents, context=recipe.context, max_tokens=eval_tokens, seed=1)
    result = evaluate(run.model, {"d": trained[0].dictionary}, sequences, ce_tokens=eval_tokens)["d"]
    found = result.metrics["dictionary"]
    return {m: (v.value, v.low, v.high) if isinstance(v := found[m], Estimate) else v for m in METRICS}


def main() -> None:
    args, out = arguments(), Console()
    base = demo(args.tokens)
    path = args.workspace / f"{'-'.join([args.member, args.field, str(args.tokens), *args.fixed])}.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    with Bars(out) as bars:
        run = Run(base, args.workspace / f"{args.tokens}", bars.stage)
        for value in map(json.loads, args.values):
            for seed in args.seeds:
                if any(k["value"] == value and k["seed"] == seed for k in known):
                    continue
                recipe = varied(alone(base, args.member, seed), args.field, value)
                for name, fixed in (f.split("=", 1) for f in args.fixed):
                    recipe = varied(recipe, name, json.loads(fixed))
                title = f"{args.field}={value} seed {seed}"
                folder = args.workspace / "runs" / f"{config_hash(recipe)}"
                known.append({"value": value, "seed": seed} | one(run, recipe, folder, args.eval_tokens, bars, title))
                path.write_text("".join(json.dumps(k) + "\n" for k in known))
    table = Table(
        args.field,
        "seeds",
        *METRICS,
        title=f"{' '.join([args.member, *args.fixed])}, {args.tokens:,} tokens: mean over seeds (lowest to highest seed)",
    )
    for value in map(json.loads, args.values):
        rows = [k for k in known if k["value"] == value]
        cells = []
        for metric in METRICS:
            numbers = np.array([k[metric][0] if isinstance(k[metric], list | tuple) else k[metric] for k in rows])
            cells.append(f"{numbers.mean():.3f} ({numbers.min():.3f} to {numbers.max():.3f})")
        table.add_row(str(value), str(len(rows)), *cells)
    out.print(table)


if __name__ == "__main__":
    main()
