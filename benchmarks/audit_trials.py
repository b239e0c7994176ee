"""What a trial of an added direction costs when the blocks below it are not computed again, over what it costs with all of them.

    python benchmarks/audit_trials.py [--model smollm2-135m-instruct] [--layers 5 15 25] [--directions 50] [--rounds 5]

Interleaved: each round times both, in turn. The ratio is of one trial's directions on the neutral prompts, batched as audits do; the
first pass, which keeps what the block below returns, is part of it. Scores of both are compared, so that a ratio is never of two things.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from diascope.audits import Target, causal, neutral
from diascope.audits.outcomes import ChoiceGap, scores
from diascope.audits.protocol import Trial
from diascope.audits.target import Tails
from diascope.models import Model, load_model
from diascope.sites import Site


def timed(target: Target, layer: int, directions: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds of a trial at L<layer>.resid_post, and its effects [n, K]."""
    tails, outcome = Tails(target, target.prompts(neutral.questions())), ChoiceGap()
    clean = scores(outcome, tails)
    began = time.perf_counter()
    found = causal.effects(outcome, tails, Trial("add", "positive", True), directions, Site(layer, "resid_post"), clean)
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--layers", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument("--directions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    target = Target(load_model(args.model, dtype="auto"))
    directions = np.random.default_rng(0).normal(size=(args.directions, target.model.d_model)).astype(np.float32)
    table = Table("layer", "seconds, all blocks", "seconds", "ratio: median", "range", "n", box=None)
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
        ratios = [part / whole for whole, part in pairs]
        middle = [f"{np.median([p[i] for p in pairs]):.2f}" for i in (0, 1)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(str(layer), *middle, f"{np.median(ratios):.2f}", spread, str(len(ratios)))
    Console().print(table)


if __name__ == "__main__":
    main()
