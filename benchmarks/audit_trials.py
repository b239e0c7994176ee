"""What an audit costs with what it computes once, over what it costs without: blocks below an edit, tokens before it.

    python benchmarks/audit_trials.py [--model smollm2-135m-instruct] [--layers 5 15 25] [--directions 50] [--rounds 5] [--audits 3]

Interleaved: each round times both, in turn. First a trial of an added direction, by layer: one trial's directions on the neutral
prompts, batched as audits do; the first pass, which keeps what the block below returns, is part of it. Then the refusal audit of the
model as it is, whole, with the keys and values of its prompts kept and computed anew each time. What both find is compared, so that a
ratio is never of two things.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from diascope.audits import PROTOCOLS, Target, causal, neutral, run_audit
from diascope.audits.outcomes import ChoiceGap, scores
from diascope.audits.protocol import Trial
from diascope.audits.target import Tails
from diascope.models import Model, load_model
from diascope.models.prefixes import Prefixes
from diascope.sites import Site


def timed(target: Target, layer: int, directions: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds of a trial at L<layer>.resid_post, and its effects [n, K]."""
    tails, outcome = Tails(target, target.prompts(neutral.questions())), ChoiceGap()
    clean = scores(outcome, tails)
    began = time.perf_counter()
    found = causal.effects(outcome, tails, Trial("add", "positive", True), directions, Site(layer, "resid_post"), clean)
    return time.perf_counter() - began, found


def audited(model: Model) -> tuple[float, tuple[str, dict[str, float]]]:
    """Seconds of the refusal audit, its verdict, and how often each side refuses."""
    began = time.perf_counter()
    (result,) = run_audit(Target(model), [PROTOCOLS["refusal"]]).data()["results"]
    sides = {name: rate["value"] for name, rate in result["numbers"]["prevalence"]["sides"].items()}
    return time.perf_counter() - began, (result["verdict"], sides)


def row(name: str, pairs: list[tuple[float, float]]) -> list[str]:
    """A line of the table, of (seconds without, seconds with) each round."""
    ratios = [part / whole for whole, part in pairs]
    middle = [f"{np.median([p[i] for p in pairs]):.2f}" for i in (0, 1)]
    return [name, *middle, f"{np.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}", str(len(ratios))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--layers", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument("--directions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--audits", type=int, default=3, help="rounds of whole audits")
    args = parser.parse_args()
    target = Target(load_model(args.model, dtype="auto"))
    directions = np.random.default_rng(0).normal(size=(args.directions, target.model.d_model)).astype(np.float32)
    table = Table("", "seconds, all anew", "seconds", "ratio: median", "range", "n", box=None)
    for layer in args.layers:
        pairs = []
        for number in range(args.rounds + 1):
            with mock.patch.object(Model, "resumes", False):
                whole, theirs = timed(target, layer, directions)
            part, ours = timed(target, layer, directions)
            if not np.allclose(ours, theirs, atol=0.05):
                raise SystemExit(f"the effects differ by {np.abs(ours - theirs).max():.3f} nats at layer {layer}")
            if number:  # the first round warms up
                pairs.append((whole, part))
        table.add_row(*row(f"trial at layer {layer}", pairs))
    pairs = []
    for number in range(args.audits + bool(args.audits)):
        with mock.patch.object(Prefixes, "_complete", lambda *_: False):
            whole, theirs = audited(target.model)
        part, ours = audited(target.model)
        if ours != theirs:
            raise SystemExit(f"the audits differ: {ours} and {theirs}")
        if number:  # the first round warms up
            pairs.append((whole, part))
    if pairs:
        table.add_row(*row("refusal audit", pairs))
    Console().print(table)


if __name__ == "__main__":
    main()
