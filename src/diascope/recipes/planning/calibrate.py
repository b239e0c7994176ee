"""Measure in about ten seconds what a recipe's units of work take on this machine, with its own model, shapes and members.

1. harvest: one forward pass of a batch, all sites.
2. training: steps of all members on random rows of the right shapes.
3. evaluation: one pass from the edited layer on, with its share of the unembedding; controls by fitting those of one member.
4. index: encoding rows, and packing latents' records.
Each is run once to warm up and then until its share of the time is spent; the median counts.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from diascope.evals.controls import controls
from diascope.models import Model
from diascope.recipes.planning.machine import Machine
from diascope.recipes.recipe import RunRecipe
from diascope.training.export import export
from diascope.training.member import Member

BATCH_SEQUENCES = 4
SEEN = 25_000  # tokens of the vocabulary that a text uses, among which direct logits are ranked
LATE = 10_000  # the step that is timed, of twice as many: k has come down to its target
INDEX_LATENT = 0.4e-3  # seconds of packing one latent's record, in Python


def calibrate(recipe: RunRecipe, model: Model, *, seconds: float = 10.0) -> Machine:
    """This machine as a Machine with measured units; `seconds` is the time given to measuring."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1.0 if sys.platform == "darwin" else 1024.0
    )  # model and libraries
    share = seconds / 5
    sites = list(recipe.training.sites())
    tokens = torch.randint(0, model.parts.config.vocab_size, (BATCH_SEQUENCES, recipe.context), generator=_generator())
    a_pass = _median(lambda: model.capture(tokens, sites), share)
    ran = {"harvest": a_pass / tokens.numel()}
    ran["training"], member = _training(recipe, model, share)
    ran["evaluation pass"] = _evaluation(recipe, model, share)
    rows = torch.randn(4096, sum(model.width(s) for s in member.recipe.reads), generator=_generator())
    targets = torch.randn(4096, sum(model.width(s) for s in member.recipe.writes), generator=_generator())
    dictionary, _ = export(member, model.name, rows[:64].clone())
    ran["encode"] = _median(lambda: dictionary.encode(rows), share / 2) / len(rows)
    ran["controls"] = _median(lambda: controls(dictionary, rows, targets, seed=0), share / 2, warm=False)
    rate = _product_rate(share / 2)
    ran["index latent"] = INDEX_LATENT + 2 * dictionary.config.widths_out[0] * (dictionary.d_sae + SEEN) / rate
    return Machine("this machine", rate, _memory(), used=used, ran=tuple(ran.items()))


def _training(recipe: RunRecipe, model: Model, share: float) -> tuple[float, Member]:
    """Seconds of one row through all members, and the last of them. Members are built one at a time."""
    run, total, member = recipe.training, 0.0, None
    for i, m in enumerate(run.members):
        reads, writes = (tuple(model.width(s) for s in sites) for sites in (m.reads, m.writes))
        member = Member(replace(m, start=()), replace(run, decoder_start="he"), reads, writes, i)
        x, y = (torch.randn(run.batch, sum(w), generator=_generator()) for w in (reads, writes))
        y = x if m.reads == m.writes else y
        member.start(torch.ones(sum(reads)), torch.ones(sum(writes)), torch.zeros(sum(writes)), x, y, [])
        step = partial(member.step, x, y, LATE, 2 * LATE)
        total += (m.ends - m.begins) * _median(step, share / len(run.members))
    assert member is not None
    return total / run.batch, member


def _evaluation(recipe: RunRecipe, model: Model, share: float) -> float:
    """Seconds of one token of one pass: the blocks from the first edited site on, and the unembedding with its losses."""
    first = min(s.layer for s in recipe.training.sites())
    tokens = torch.randint(0, model.parts.config.vocab_size, (1, recipe.context), generator=_generator())
    trunk = _median(lambda: model.hidden(tokens), share / 2) * (model.n_layers - first) / model.n_layers
    hidden = torch.randn(64, model.d_model, generator=_generator())
    W_U = model.unembedding.float()

    def losses() -> tuple[torch.Tensor, ...]:
        logits = hidden @ W_U.t()
        return logits.logsumexp(-1), logits.argmax(-1), (logits[0] * logits).sum(-1)

    return trunk / tokens.numel() + _median(losses, share / 2) / len(hidden)


def _median(work: Callable[[], object], share: float, *, warm: bool = True) -> float:
    """Median seconds of `work`, repeated for about `share` seconds and at least once."""
    if warm:
        work()
    found, end = list[float](), time.perf_counter() + share
    while not found or (time.perf_counter() < end and len(found) < 9):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def _product_rate(share: float) -> float:
    """Operations a second in a product of 1,024 x 640 x 4,096 in float32."""
    a, b = torch.randn(1024, 640, generator=_generator()), torch.randn(640, 4096, generator=_generator())
    return 2 * 1024 * 640 * 4096 / _median(lambda: a @ b, share)


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
