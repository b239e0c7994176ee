"""Cross-layer transcoders over all 18 layers of Gemma 3 270M, without and with skip, at three L0s: one table.

    python benchmarks/clt.py --workspace DIR [--tokens 100000] [--epochs 1] [--per-layer 1024] [--l0 50 150 500]

All six in one group, on the same batches. L0 is over all layers together (the release: 50 and 150). Judged as the replacement
model, in which every MLP output is what the CLT writes; ridge is each layer's own least-squares map, standing in the same way.
36 sites take 46 kB of disk a token. Interrupted, the same command goes on. Results: DIR/clt.json and the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diascope.dictionaries import BatchTopK, Causal
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.storage.files import write_json
from diascope.training import MemberRecipe

LAYERS = 18
ROWS = ("dictionary", "affine_part", "ridge", "minus ridge", "mean")
COLUMNS = ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")


def members(per_layer: int, targets: list[int]) -> tuple[MemberRecipe, ...]:
    reads, writes = (tuple(f"L{i}.{kind}" for i in range(LAYERS)) for kind in ("mlp_in", "mlp_out"))
    return tuple(
        MemberRecipe(
            f"clt{'-skip' if skip else ''}-{k}",
            reads,
            writes,
            Causal(),
            per_layer * LAYERS,
            BatchTopK(k),
            None,
            skip,
            l0_target=float(k),
        )
        for k in targets
        for skip in (False, True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens harvested (default: 100000)")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over them (default: 1)")
    parser.add_argument("--per-layer", type=int, default=1024, help="latents a layer (default: 1024)")
    parser.add_argument(
        "--l0", type=int, nargs="+", default=[50, 150, 500], help="target L0s over all layers (default: 50 150 500)"
    )
    args, out = parser.parse_args(), Console(width=120)
    recipe = RunRecipe(
        scaled(members(args.per_layer, args.l0), args.tokens, epochs=args.epochs, batch=512), name="clt", tokens=args.tokens,
        calibration="held-out+wikipedia-passages-dev",
    )  # fmt: skip
    with Bars(out) as bars:
        run = Run(recipe, args.workspace, bars.stage)
        results = run.judge(run.train())
    write_json(args.workspace / "clt.json", {n: e.card() for n, e in results.items()})
    t = Table(
        "",
        *COLUMNS,
        title=f"{args.per_layer} latents a layer, {args.tokens} tokens x {args.epochs:g}; ± is half a 95 % interval",
    )
    for name, e in results.items():
        for row in (r for r in ROWS if r in e.metrics):
            t.add_row(
                name if row == "dictionary" else f"  {row}",
                *(e.metrics[row][c].plus_minus if c in e.metrics[row] else "" for c in COLUMNS),
            )
    out.print(t)


if __name__ == "__main__":
    main()
