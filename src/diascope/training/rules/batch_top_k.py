"""BatchTopK: the k B largest positive pre-activations of a batch; one frozen threshold afterwards (arXiv:2412.06410)."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.distributed import ALONE, Team
from diascope.kernels import SparseLatents
from diascope.training.pre_acts import PreActivations
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.rules.rule import Rule, scaled_thresholds


class BatchTopKRule(Rule):
    """k starts at four times its target. The bar is guessed from the last batch."""

    opening = 4.0

    def __init__(self, recipe: MemberRecipe, run: TrainingRecipe, team: Team = ALONE) -> None:
        super().__init__(recipe, run, team)
        self.theta = torch.zeros(self.width)

    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        k = round(self.aim(now)) * pres.rows
        near, bar = pres.top(k, self.guess)
        if bar is not None:
            self.guess = bar
        return near

    def adopt(self, b_enc: Tensor, theta: Tensor) -> Tensor:
        self.guess = float(theta.median())
        return b_enc

    def calibrate(self, pres: PreActivations) -> float:
        """The k-th largest pre-activation over the rows becomes every latent's threshold: the conversion to JumpReLU."""
        unit = torch.full_like(self.theta, max(self.guess, 1e-12))
        self.theta, before = scaled_thresholds(unit, pres, round(self.recipe.l0_target * len(pres)))
        return before / len(pres)

    def export(self, encoders: list[Tensor], b_enc: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        return encoders, b_enc, self.theta
