"""Every kind of dictionary from one pass over Gemma 3 270M, on the same rows, at three L0s: one table.

    python benchmarks/kinds.py --workspace DIR [--tokens 500000] [--epochs 1] [--latents 4096]

1. One harvest: resid_post at layers 5, 9, 12, 15, and mlp_in, mlp_out at layer 12.
2. One group, same batches for all members: SAEs on L12.resid_post {JumpReLU, BatchTopK, TopK} x {plain, Matryoshka},
   transcoders at layer 12 {without, with skip}, a causal crosscoder over the four depths; at the release's three L0s.
3. A second group: plain BatchTopK SAEs as wide as each Matryoshka prefix, with k the L0 that prefix turned out to have.
4. Evaluation on BoolQ test passages (docs/evaluation.md); controls are fitted once a site and L0.

Interrupted, the same command goes on. Results: DIR/kinds.json and the tables on the terminal.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diascope.activations import RowReader, beside
from diascope.config import config_hash
from diascope.dictionaries import BatchTopK, Causal, Dictionary, JumpReLU, TopK, load_dictionary, save_dictionary
from diascope.evals import Evaluation, evaluate
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import L0, prefixes, scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.storage.files import write_json
from diascope.tokens import open_corpus, pack
from diascope.training import MemberRecipe, QuadraticL0, train_group

LEVELS = {size: float(high) for size, (_low, high) in L0.items()}  # layer 12 is past a third of the model
DEPTHS = (5, 9, 12, 15)
RESID, IN, OUT = "L12.resid_post", "L12.mlp_in", "L12.mlp_out"


def members(latents: int) -> tuple[MemberRecipe, ...]:
    """All members of the first group."""
    found = []
    for size, k in LEVELS.items():
        activations = {"jumprelu": JumpReLU(bandwidth=0.01), "batchtopk": BatchTopK(int(k)), "topk": TopK(int(k))}
        for name, activation in activations.items():
            control = QuadraticL0() if name == "jumprelu" else None
            for nested in (False, True):
                found.append(
                    MemberRecipe(
                        f"sae-{name}{'-matryoshka' if nested else ''}-{size}",
                        RESID,
                        RESID,
                        d_sae=latents,
                        activation=activation,
                        matryoshka=prefixes(latents) if nested else None,
                        l0_target=k,
                        sparsity=control,
                    )
                )
        for skip in (False, True):
            found.append(
                MemberRecipe(
                    f"{'skip-' if skip else ''}transcoder-{size}",
                    IN,
                    OUT,
                    d_sae=latents,
                    activation=BatchTopK(int(k)),
                    matryoshka=None,
                    skip=skip,
                    l0_target=k,
                )
            )
        sites = tuple(f"L{layer}.resid_post" for layer in DEPTHS)
        found.append(MemberRecipe(f"crosscoder-{size}", sites, sites, Causal(), latents, BatchTopK(int(k)), None, l0_target=k))
    return tuple(found)


def trained(
    run: Run, base: RunRecipe, chosen: tuple[MemberRecipe, ...], folder: Path, bars: Bars, title: str
) -> dict[str, Dictionary]:
    """The dictionaries of `chosen`, trained as one group; those on disk are loaded."""
    if not all((folder / m.name).exists() for m in chosen):
        recipe = replace(base.training, members=chosen)
        reader = run.harvest()
        for t in train_group(
            recipe, reader, folder / f"training-{config_hash(recipe)}", model=base.model, calibration=run.calibration_rows, progress=bars.stage(title, "rows")
        ):  # fmt: skip
            save_dictionary(t.dictionary, folder / t.recipe.name, probe=t.probe, overwrite=True)
    return {m.name: load_dictionary(folder / m.name) for m in chosen}


def judged(
    run: Run, found: dict[str, Dictionary], controlled: set[str], reader: RowReader, bars: Bars, ce_tokens: int
) -> dict[str, Evaluation]:
    """Evaluations; only those named in `controlled` with controls of their own."""
    text = pack(run.model, open_corpus("wikipedia-passages").documents, context=512, max_tokens=16_384)
    sample = np.sort(np.random.default_rng(0).choice(len(reader), min(16_384, len(reader)), replace=False))

    def rows(d: Dictionary) -> Any:
        return beside(reader, d.config.reads, sample), beside(reader, d.config.writes, sample)

    out: dict[str, Evaluation] = {}
    for wanted in (True, False):
        chosen = {n: d for n, d in found.items() if (n in controlled) == wanted}
        out |= evaluate(
            run.model, chosen, text, training_rows=rows if wanted else None, ce_tokens=ce_tokens, text="wikipedia-passages",
            progress=bars.stage("evaluate with controls" if wanted else "evaluate", "maps"),
        )  # fmt: skip
    return out


def prefix_members(found: dict[str, Dictionary], reader: RowReader, held: np.ndarray) -> tuple[MemberRecipe, ...]:
    """Plain dictionaries as wide as each prefix of the Matryoshka BatchTopK SAEs, at the L0 that the prefix has."""
    chosen = []
    for size in LEVELS:
        d = found[f"sae-batchtopk-matryoshka-{size}"]
        for p in d.config.matryoshka.prefixes[:-1]:  # type: ignore[union-attr]
            l0 = float(d.prefix(p).encode(beside(reader, d.config.reads, held)).counts.float().mean())
            k = max(1, round(l0))
            chosen.append(MemberRecipe(f"plain-{p}-{size}", RESID, RESID, d_sae=p, activation=BatchTopK(k), matryoshka=None, l0_target=float(k)))  # fmt: skip
    return tuple(chosen)


def table(results: dict[str, Evaluation], out: Console) -> None:
    columns = ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")
    t = Table("", *columns, title="± is half a 95 % interval over documents")
    for name, e in results.items():
        t.add_row(name, *(e.metrics["dictionary"][c].plus_minus for c in columns))
        for control in ("affine_part", "ridge", "minus ridge", "token_pca", "pca", "random", "mean"):
            if control in e.metrics:
                t.add_row(
                    f"  {control}",
                    *(e.metrics[control][c].plus_minus if c in e.metrics[control] else "" for c in columns),
                    style="dim",
                )
    out.print(t)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=500_000, help="tokens harvested (default: 500000)")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over them (default: 1)")
    parser.add_argument("--latents", type=int, default=4096, help="latents of every dictionary (default: 4096)")
    parser.add_argument("--ce-tokens", type=int, default=2_048, help="tokens for losses (default: 2048)")
    args, out = parser.parse_args(), Console(width=160)
    first = members(args.latents)
    base = RunRecipe(
        scaled(first, args.tokens, epochs=args.epochs), name="kinds", corpus="wikipedia-sample", tokens=args.tokens,
        calibration="held-out+wikipedia-passages-dev",
    )  # fmt: skip
    with Bars(out) as bars:
        run = Run(base, args.workspace, bars.stage)
        dictionaries = args.workspace / "kinds" / config_hash(base)
        found = trained(run, base, first, dictionaries, bars, "train")
        reader = RowReader(args.workspace / "spool")
        held = np.sort(np.random.default_rng(1).choice(len(reader), 8_192, replace=False))
        plain = trained(run, base, prefix_members(found, reader, held), dictionaries, bars, "train plain widths")
        once = {n for n in found if "sae" not in n} | {f"sae-batchtopk-{size}" for size in LEVELS}  # one a site and L0
        results = judged(run, found, once, reader, bars, args.ce_tokens)
        levels = {}
        for size in LEVELS:
            d = found[f"sae-batchtopk-matryoshka-{size}"]
            levels |= {f"prefix-{p}-{size}": d.prefix(p) for p in d.config.matryoshka.prefixes[:-1]}  # type: ignore[union-attr]
        results |= judged(run, levels | plain, set(), reader, bars, args.ce_tokens)
    write_json(args.workspace / "kinds.json", {n: e.card() for n, e in results.items()})
    table(results, out)
    for size in LEVELS:
        for p in found[f"sae-batchtopk-matryoshka-{size}"].config.matryoshka.prefixes[:-1]:  # type: ignore[union-attr]
            ours, theirs = (results[f"{kind}-{p}-{size}"].metrics["dictionary"]["fvu"] for kind in ("prefix", "plain"))
            ratio = ours.value / theirs.value  # type: ignore[union-attr]
            out.print(f"{size}: FVU of the first {p} latents over a plain dictionary of {p}: {ratio:.3f}")
    out.print(json.dumps({"tokens": args.tokens, "epochs": args.epochs, "latents": args.latents}))


if __name__ == "__main__":
    main()
