"""From plain text to conversations: does fine-tuning a dictionary beat leaving it, and training anew on as many tokens?

    python benchmarks/chat.py --workspace DIR [--conversations 512] [--seeds 3]

1. Base: an SAE of SmolLM2-135M-Instruct (L15.resid_post, 4,096 latents) on plain text (recipes/smollm2.py).
2. Pair one: the same model's own answers to questions that people typed (recipes/chat.py).
3. Pair two: a small fine-tune of that model (recipes/tune_model.py), and that one's answers.

Interrupted, the same command goes on. Results: DIR/<pair>-<seed>/report.json and the tables on the terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from diascope.models import load_model
from diascope.progress import Bars
from diascope.recipes.chat import ChatTuning, chat
from diascope.recipes.run import Run
from diascope.recipes.smollm2 import smollm2
from diascope.recipes.tune_model import encyclopedic, tune_model
from diascope.tables import chat_table
from diascope.tokens import Rollouts, rollouts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--conversations", type=int, default=512, help="conversations a model (default: 512)")
    parser.add_argument("--tokens", type=int, default=250_000, help="tokens of plain text for the base (default: 250000)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the dictionaries' training (default: 1)")
    args, out = parser.parse_args(), Console(width=140)
    with Bars(out) as bars:
        base = Run(smollm2(args.tokens), args.workspace / "base", bars.stage)
        base.train()
        base.evaluate()
        model = args.workspace / "encyclopedic"
        if not model.exists():
            subject = load_model("smollm2-135m-instruct")
            losses = tune_model(subject, encyclopedic(), model, progress=bars.stage("tune the model", "steps"))
            out.print(f"loss of its answers: {losses[0]:.3f} to {losses[-1]:.3f}")
        reports = {}
        for name, subject in (("instruct", "smollm2-135m-instruct"), ("encyclopedic", str(model))):
            sampling = Rollouts(count=args.conversations, batch=64)
            say = bars.stage(f"rollouts {name}", "conversations")
            said = rollouts(load_model(subject, dtype="auto"), sampling, args.workspace / f"{name}-rollouts", progress=say)
            for seed in range(args.seeds):
                config = ChatTuning(subject, sampling, str(said), seed=seed)
                where = args.workspace / f"{name}-{seed}"
                reports[f"{name}, seed {seed}"] = chat(str(base.folder("sae")), config, where, stage=bars.stage).report
    for name, report in reports.items():
        out.print(chat_table(name, report))


if __name__ == "__main__":
    main()
