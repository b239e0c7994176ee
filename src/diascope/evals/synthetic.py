"""Dictionaries on rows whose features are known: how many are found, and whether a general one survives beside its special cases.

A world has F unit directions; a row is the sum of the active ones, each times a magnitude, plus noise.
- Features fire by Zipf's law, feature i with a rate in proportion to (i + 1)^-s; groups of `group` neighbours are correlated: with
  probability `together` the whole group's coins are one coin.
- Of a hierarchy, the first P features are parents: each has C children, and a child fires only where its parent does
  (Chanin et al. 2024, arXiv:2409.14507; Bussmann et al. 2025, arXiv:2503.17547).

matched(d, world)    each feature with the latent whose decoder row is nearest, one to one (Hungarian): the mean cosine; the share of
                     features whose nearest latent is no other's nearest; precision and recall of firing, over features
absorbed(d, world)   for each parent its latent is the one whose firing has the best F1 on rows without any of the children; then
                     P(latent silent | parent and child) - P(latent silent | parent alone), mean over pairs of parent and child;
                     a parent whose latent has F1 below 0.5 was not found and does not count: where none was, the result is null
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import Dictionary
from diascope.evals.entry import over
from diascope.numerics import Estimate


@dataclass(frozen=True)
class World:
    """What is true. `parents` x `children` features come first, the others are Zipf's."""

    d: int = 64
    features: int = 160
    active: float = 6.0  # of Zipf's features a row, in the mean
    zipf: float = 0.8
    group: int = 4
    together: float = 0.3
    parents: int = 0
    children: int = 4
    noise: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parents * (1 + self.children) > self.features:
            raise ValueError(
                f"{self.parents} parents with {self.children} children each are more than {self.features} features"
            )

    @property
    def directions(self) -> Tensor:
        """[F, d], unit length."""
        g = rng.torch_generator(self.seed, "world")
        return torch.nn.functional.normalize(torch.randn(self.features, self.d, generator=g), dim=1)

    def child(self, parent: int, i: int) -> int:
        """The number of the i-th child of `parent`."""
        return self.parents + parent * self.children + i

    def rows(self, n: int, draw: int = 0) -> tuple[Tensor, Tensor]:
        """(rows [n, d], magnitudes [n, F]); `draw` makes other rows of the same world."""
        g = rng.generator(self.seed, "rows", draw)
        on = np.concatenate([self._hierarchy(g, n), self._zipf(g, n)], 1)
        magnitude = torch.from_numpy((on * g.uniform(0.5, 1.5, on.shape)).astype(np.float32))
        noise = torch.from_numpy(g.normal(0, self.noise, (n, self.d)).astype(np.float32))
        return magnitude @ self.directions + noise, magnitude

    def _hierarchy(self, g: np.random.Generator, n: int) -> np.ndarray:
        """A parent fires on a tenth of the rows; then, with probability 4/5, one of its children."""
        parent = g.random((n, self.parents)) < 0.1
        which = g.integers(0, self.children, (n, self.parents))
        some = parent & (g.random((n, self.parents)) < 0.8)
        child = some[..., None] & (which[..., None] == np.arange(self.children))
        return np.concatenate([parent, child.reshape(n, -1)], 1)

    def _zipf(self, g: np.random.Generator, n: int) -> np.ndarray:
        rest = self.features - self.parents * (1 + self.children)
        if not rest:
            return np.zeros((n, 0), bool)
        rate = np.arange(1, rest + 1) ** -self.zipf
        rate = np.minimum(rate * self.active / rate.sum(), 0.5)
        coin = g.random((n, rest))
        shared = g.random((n, -(-rest // self.group))).repeat(self.group, 1)[:, :rest]
        as_one = (g.random((n, -(-rest // self.group))) < self.together).repeat(self.group, 1)[:, :rest]
        return np.where(as_one, shared, coin) < rate


@torch.no_grad()
def matched(d: Dictionary, world: World, *, rows: int = 20_000) -> dict[str, Estimate | float | None]:
    """How well `d` found the features of `world`; its rows are not those that it may have been trained on."""
    from scipy.optimize import linear_sum_assignment

    x, magnitude = world.rows(rows, draw=1)
    W = torch.nn.functional.normalize(d.W_dec, dim=1)
    cosine = (world.directions @ W.t()).numpy()  # [F, S]
    feature, latent = linear_sum_assignment(-cosine)
    nearest = cosine.argmax(1)
    alone = np.bincount(nearest, minlength=cosine.shape[1])[nearest] == 1
    fired = d.encode(x).dense().numpy()[:, latent] > 0
    true = magnitude.numpy()[:, feature] > 0
    both = (fired & true).sum(0)

    def all_features(values: np.ndarray) -> Estimate | None:
        """Of a dictionary with fewer latents than there are features the others' values are 0."""
        return over(np.concatenate([values, np.zeros(world.features - len(values))]))

    return {
        "matching cosine": all_features(cosine[feature, latent]),
        "found (cosine > 0.9)": all_features((cosine[feature, latent] > 0.9).astype(float)),
        "uniqueness": over(alone.astype(float)),
        "precision": all_features(both / np.maximum(fired.sum(0), 1)),
        "recall": all_features(both / np.maximum(true.sum(0), 1)),
    }


@torch.no_grad()
def absorbed(d: Dictionary, world: World, *, rows: int = 40_000) -> dict[str, Any]:
    """Absorption of parents into children; ValueError for a world without a hierarchy."""
    if not world.parents:
        raise ValueError("this world has no parents, so nothing can be absorbed: give World(parents=...)")
    x, magnitude = world.rows(rows, draw=1)
    fired, on = d.encode(x).dense().numpy() > 0, magnitude.numpy() > 0
    rates, f1, units = [], [], []
    for p in range(world.parents):
        kids = [world.child(p, i) for i in range(world.children)]
        alone = on[:, p] & ~on[:, kids].any(1)
        bare = ~on[:, kids].any(1)
        hits = (fired[alone]).sum(0)
        scores = 2 * hits / np.maximum(alone.sum() + fired[bare].sum(0), 1)
        best = int(scores.argmax())
        f1.append(float(scores[best]))
        if f1[-1] < 0.5:
            continue
        silent = 1 - fired[alone, best].mean()
        for c in (c for c in kids if on[:, c].any()):
            rates.append(float(1 - fired[on[:, c], best].mean() - silent))
            units.append(p)
    return {
        "absorption": over(rates, units),
        "f1 of parents' latents": over(f1),
        "parents found": float(np.mean(np.array(f1) >= 0.5)),
        "l0": float(fired.sum(1).mean()),
    }
