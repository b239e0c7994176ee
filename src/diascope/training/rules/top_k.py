"""TopK: the k largest positive pre-activations of each row (arXiv:2406.04093); exported as it is."""

from __future__ import annotations

from diascope.dictionaries.activations import Activation, TopK
from diascope.kernels import SparseLatents
from diascope.training.pre_acts import PreActivations
from diascope.training.rules.rule import Rule


class TopKRule(Rule):
    """k starts at four times its target, as BatchTopK's does."""

    opening = 4.0

    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        return pres.largest(round(self.aim(now)))

    @property
    def exported(self) -> Activation:
        return TopK(round(self.recipe.l0_target))
