"""TopK: the k largest positive pre-activations of each row (arXiv:2406.04093); exported as it is."""

from __future__ import annotations

from torch import Tensor

from diascope.dictionaries.activations import Activation, TopK
from diascope.kernels import SparseLatents, largest, merged
from diascope.training.rules.rule import Rule


class TopKRule(Rule):
    """k starts at four times its target, as BatchTopK's does."""

    opening = 4.0

    def select(self, pres: list[Tensor], now: float) -> SparseLatents:
        k = round(self.aim(now))
        near = merged([largest(p, k) for p in pres], sum(p.shape[1] for p in pres))
        return near.strongest(k) if len(pres) > 1 else near

    @property
    def exported(self) -> Activation:
        return TopK(round(self.recipe.l0_target))
