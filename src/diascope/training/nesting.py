"""Matryoshka prefixes of a step: fixed, drawn, or the whole width alone; each block of latents gives its share."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import Matryoshka, SampledMatryoshka
from diascope.dictionaries.site_maps import Block
from diascope.distributed import ALONE, Axis
from diascope.training.recipe import MemberRecipe


class Levels:
    """`at(step)` gives, for every block, how many of its latents each prefix holds, and the prefixes' weights."""

    def __init__(self, recipe: MemberRecipe, blocks: tuple[Block, ...], seed: int, axis: Axis = ALONE.latent) -> None:
        self.recipe, self.blocks, self.seed, self.axis = recipe, blocks, seed, axis
        self.device = torch.device("cpu")
        self._fixed = (
            None if isinstance(recipe.matryoshka, SampledMatryoshka) else self._shared(self._prefixes(), self._weights())
        )

    def to(self, device: torch.device | str) -> None:
        """Give what `at` gives there."""
        self.device = torch.device(device)
        if self._fixed is not None:
            ends, weights = self._fixed
            self._fixed = [e.to(device) for e in ends], weights

    def at(self, step: int) -> tuple[list[Tensor], Tensor]:
        """([ends [P] of each block], weights [P] that sum to 1) of `step`: a pure function of seed and step."""
        if self._fixed is not None:
            return self._fixed
        m = self.recipe.matryoshka
        assert isinstance(m, SampledMatryoshka)
        n, S = len(self.blocks), self.recipe.d_sae
        low, high = min(m.least, S // 2), S
        u = rng.generator(self.seed, "prefixes", self.recipe.name, step).random(m.count - 1)
        # inverse of the Pareto distribution function truncated to [low, high]
        drawn = low * (1 - u * (1 - (low / high) ** m.alpha)) ** (-1 / m.alpha)
        sizes = sorted({max(n, int(p) // n * n) for p in drawn} | {S})
        return self._shared(tuple(sizes), (1.0,) * len(sizes))

    def _prefixes(self) -> tuple[int, ...]:
        return self.recipe.matryoshka.prefixes if isinstance(self.recipe.matryoshka, Matryoshka) else (self.recipe.d_sae,)

    def _weights(self) -> tuple[float, ...]:
        return self.recipe.matryoshka.weights if isinstance(self.recipe.matryoshka, Matryoshka) else (1.0,)

    def _shared(self, prefixes: tuple[int, ...], weights: tuple[float, ...]) -> tuple[list[Tensor], Tensor]:
        ends = torch.tensor(prefixes) // len(self.blocks)
        r, n = self.axis.rank, self.axis.size
        ends = (ends - r + n - 1).div(n, rounding_mode="floor").clamp_min(0)  # how many of r, r + n, ... lie in a prefix
        return [ends.to(self.device)] * len(self.blocks), torch.tensor(weights, dtype=torch.float64) / sum(weights)
