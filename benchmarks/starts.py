"""Does a crosscoder gain from starting with single-layer dictionaries? Three of them in one run, on the same rows.

    python benchmarks/starts.py --workspace DIR [--tokens 150000]

Gemma 3 270M, resid_post at layers 5, 9, 12, 15; 1,024 latents a layer, L0 60 over all of them, one pass over the rows.
    singles    four Matryoshka SAEs of 2,048 latents, trained all along (not in the table); half of them are dropped as duplicates
    scratch    a causal crosscoder from noise, all along
    late       the same from noise, second half only
    warm       the same from the four singles as they are at half time, second half only: what the start costs is the singles
Results on BoolQ test passages, with warm minus late and minus scratch on the same tokens.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diascope.dictionaries import BatchTopK, Causal
from diascope.evals import Series, difference
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import l0_target, prefixes, scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.training import MemberRecipe

DEPTHS, K, PER = (5, 9, 12, 15), 60, 1024


def members() -> tuple[MemberRecipe, ...]:
    sites = tuple(f"L{layer}.resid_post" for layer in DEPTHS)
    singles = tuple(
        MemberRecipe(
            f"single-{layer}",
            site,
            site,
            d_sae=2 * PER,
            activation=BatchTopK(k),
            matryoshka=prefixes(2 * PER),
            l0_target=float(k),
        )
        for layer, site in zip(DEPTHS, sites, strict=True)
        if (k := l0_target(layer, 18))
    )
    scratch = MemberRecipe("scratch", sites, sites, Causal(), PER * len(sites), BatchTopK(K), None, l0_target=float(K))
    start = tuple(f"member:{s.name}" for s in singles)
    return (
        *singles,
        scratch,
        replace(scratch, name="late", begins=0.5),
        replace(scratch, name="warm", begins=0.5, start=start),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=150_000, help="tokens harvested (default: 150000)")
    args, out = parser.parse_args(), Console(width=120)
    recipe = RunRecipe(
        scaled(members(), args.tokens, epochs=1.0), name="starts", tokens=args.tokens, calibration="held-out+wikipedia-passages-dev",
        controls=False, ce_tokens=4_096,
    )  # fmt: skip
    with Bars(out) as bars:
        run = Run(recipe, args.workspace, bars.stage)
        found = run.train()
        results = run.judge({n: found[n] for n in ("scratch", "late", "warm")})
    t = Table("", "L0", "FVU", "FVU std.", "delta CE", "dead", title=f"{args.tokens} tokens, one pass")
    for name, r in results.items():
        t.add_row(name, *(r.metrics["dictionary"][m].plus_minus for m in ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")))
    series: dict[str, Series] = {n: r.series["dictionary"] for n, r in results.items()}
    for other in ("late", "scratch"):
        d = difference(series["warm"], series[other])
        t.add_row(f"warm - {other}", "", d["fvu"].plus_minus, "", d["delta_ce"].plus_minus, "")
    out.print(t)


if __name__ == "__main__":
    main()
