"""A crosscoder over a chat model and its small fine-tune, from one run, and which latents are really one model's own.

    python benchmarks/two_models.py --workspace DIR --tuned MODEL [--tokens 100000]

MODEL is the folder that benchmarks/chat.py made (its workspace's `encyclopedic`). Both models read the fine-tune's own
conversations (its `encyclopedic-rollouts`) and plain text. BatchTopK, the default, beside ReLU with L1 at the same target L0: the
second is known to invent latents of one model (Minder, Dumas et al. 2025); latent scaling says how many are real.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diascope.dictionaries import BatchTopK, Joint, ReLU
from diascope.numerics import Estimate
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.storage.files import read_json
from diascope.training import MemberRecipe

SITES, LATENTS, K = ("L15.resid_post", "tuned:L15.resid_post"), 4096, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True, help="folder of the fine-tuned model")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens harvested (default: 100000)")
    args, out = parser.parse_args(), Console(width=120)
    members = tuple(
        MemberRecipe(name, SITES, SITES, Joint(), LATENTS, activation, None, l0_target=float(K))
        for name, activation in (("batchtopk", BatchTopK(K)), ("relu-l1", ReLU()))
    )
    rollouts = args.tuned.with_name(f"{args.tuned.name}-rollouts") / "rollouts.jsonl"
    recipe = RunRecipe(
        scaled(members, args.tokens, epochs=2.0), name="two_models", model="smollm2-135m-instruct", companions=(("tuned", str(args.tuned)),),
        corpus=f"{rollouts}+wikipedia-sample", tokens=args.tokens, eval_corpus="held-out", ce_tokens=4_096,
    )  # fmt: skip
    with Bars(out) as bars:
        run = Run(recipe, args.workspace, bars.stage)
        run.train()
        run.evaluate()
    t = Table(
        "", "L0", "FVU", "delta CE", "at the tuned model", "look its own", "are its own", "shrunk away", "written by others"
    )
    for m in members:
        card = read_json(run.folder(m.name) / "card.json")
        own, tuned = card["metrics"]["dictionary"], card["metrics"][f"dictionary at {SITES[1]}"]
        for model in SITES:
            s = card["latent_scaling"]["sites"][model]
            shown = (
                [Estimate(**m).plus_minus for m in (own["l0"], own["fvu"], own["delta_ce"], tuned["delta_ce"])]
                if model == SITES[0]
                else [""] * 4
            )
            counts = (s["look_like_its_own"], s["are_its_own"], s["shrunk_away"], s["written_by_others"])
            t.add_row(f"{m.name}: {model}", *shown, *map(str, counts))
    out.print(t)


if __name__ == "__main__":
    main()
