"""ReLU with an L1 penalty (Bricken et al. 2023); decoder rows have unit length, so latents cannot hide from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diascope.dictionaries.activations import Activation, ReLU
from diascope.kernels import SparseLatents
from diascope.training.pre_acts import PreActivations
from diascope.training.rules.rule import Gradients, Rule
from diascope.training.sparsity import Coefficient, Controller


class ReLURule(Rule):
    """The penalty's slope is the same for every active latent: weight / B. L0 follows the weight; nothing is calibrated."""

    takes = (Controller, Coefficient)

    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        return pres.above(0.0)

    def gradients(
        self, near: SparseLatents, active: Tensor, df: Tensor, now: float, frozen: Callable[[Tensor], Tensor]
    ) -> Gradients:
        return Gradients(df + l1_slope(self, len(near) * self.team.data.size, now))

    @property
    def exported(self) -> Activation:
        return ReLU()


def l1_slope(rule: Rule, rows: int, now: float) -> float:
    """d(weight * mean over rows of |f|_1)/df, the same at every active entry."""
    assert rule.sparsity is not None
    return now * float(rule.sparsity.cost(torch.zeros(1, dtype=torch.float64), rule.recipe.l0_target, rule.weight)) / rows
