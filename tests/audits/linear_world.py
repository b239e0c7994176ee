"""A world without a model, in which a trial costs nothing: the score is a known function of one vector a case.

What `causal` and `doses` ask of a target and its tails is here, and `scores` carries an edit out with its own rule. The truth of every
effect can be written down: adding v changes a linear score by u.v, taking out a share s of v by -s (x.v / v.v) u.v.
"""

from types import SimpleNamespace

import numpy as np
import torch

from diascope.audits import causal, doses
from diascope.sites import Site

SITES = [Site(layer, "resid_post") for layer in range(4)]


class World:
    """n cases of one group each with vectors x [n, d], scored by x.u."""

    def __init__(self, x, u):
        self.x, self.u = x, u
        self.prompts = [SimpleNamespace(case=SimpleNamespace(group=str(i))) for i in range(len(x))]
        model = SimpleNamespace(n_layers=len(SITES), has=lambda site: True)
        self.target = SimpleNamespace(rows=2**20, batch=2**10, sites=SITES, model=model)


def scores(outcome, world, edits=(), *, repeats=1):
    if not edits:
        return world.x @ world.u
    (edit,) = edits
    v = np.atleast_2d(edit.what.direction.double().numpy())
    held = world.x @ v.T / (v * v).sum(1)
    changed = edit.what.rule(torch.from_numpy(held)).numpy() - held
    found = (world.x @ world.u)[:, None] + changed * (v @ world.u)
    return found[:, 0] if repeats == 1 else found


def enter(monkeypatch):
    """Edits are carried out here from now on, until the end of the test."""
    monkeypatch.setattr(causal, "scores", scores)
    monkeypatch.setattr(doses, "scores", scores)


def training(random, d=48, groups=24, steep=0.5):
    """Vectors of pairs whose label means nothing: spread that falls with the dimension (power `steep`), a topic a pair; labels, groups."""
    spread = np.arange(1, d + 1.0) ** -steep
    topic = np.repeat(random.standard_normal((groups, d)), 2, 0)
    x = (topic + random.standard_normal((2 * groups, d))) * spread
    return x, np.arange(2 * groups) % 2 == 0, [str(i // 2) for i in range(2 * groups)]
