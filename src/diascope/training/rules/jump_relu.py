"""JumpReLU: a threshold a latent, trained by straight-through estimators (Rajamanoharan et al. 2024, equations 9 and 11)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diascope.dictionaries.activations import Activation, JumpReLU
from diascope.distributed import ALONE, Team
from diascope.kernels import SparseLatents, column_sums
from diascope.kernels.latents import starts
from diascope.training.pre_acts import PreActivations
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.rules.rule import Gradients, Rule, scaled_thresholds
from diascope.training.sparsity import Coefficient, Controller, QuadraticL0


class JumpReLURule(Rule):
    """With K the unit rectangle and eps the bandwidth:

    dtheta = -(theta / eps) K((pre - theta) / eps) df - (1 / eps) K(.) (dP/dn_b + the frequency penalty's cost) / B
    """

    takes = (QuadraticL0, Coefficient, Controller)
    frequency = True

    def __init__(self, recipe: MemberRecipe, run: TrainingRecipe, team: Team = ALONE) -> None:
        super().__init__(recipe, run, team)
        self.params["theta"] = torch.full((self.width,), run.theta_start)

    @property
    def _bandwidth(self) -> float:
        return self.recipe.activation.bandwidth  # type: ignore[union-attr]

    def adopt(self, b_enc: Tensor, theta: Tensor) -> Tensor:
        self.params["theta"].copy_(theta)
        return b_enc

    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        bar = (self.params["theta"].clamp_min_(0.0) - self._bandwidth / 2).clamp_min(0)
        return pres.above(bar, exactly=False)  # what lies below the window is not active and feels nothing

    def values(self, near: SparseLatents) -> tuple[Tensor, Tensor]:
        active = near.value > self.params["theta"][near.index]
        return torch.where(active, near.value, 0.0), active

    def gradients(
        self, near: SparseLatents, active: Tensor, df: Tensor, now: float, frozen: Callable[[Tensor], Tensor]
    ) -> Gradients:
        assert self.sparsity is not None
        theta, rows, team = self.params["theta"][near.index], len(near), self.team
        B = rows * team.data.size
        window = ((near.value - theta).abs() < self._bandwidth / 2).to(df.dtype) / self._bandwidth
        before = starts(active)[near.start]  # active entries before each row
        l0 = team.latent.sum((before[1:] - before[:-1]).to(df.dtype))
        cost = now * self.sparsity.cost(torch.cat(team.data.gathered(l0)), self.aim(now), self.weight)
        own = cost[rows * team.data.rank :][:rows] if cost.ndim else cost
        per_entry = -theta * window * df - (own[near.rows] if own.ndim else own) * window / B
        if self.recipe.frequency is not None:
            w = team.data.sum(column_sums(near.with_values(active.to(df.dtype)))) / B
            per_entry = per_entry - now * self.recipe.frequency.cost(w)[near.index] * window / B
        dtheta = column_sums(near.with_values(per_entry))
        return Gradients(torch.where(active, df, 0.0), params={"theta": dtheta})

    def calibrate(self, pres: PreActivations) -> float:
        """All thresholds are multiplied by one factor."""
        unit = self.params["theta"].clamp_min(1e-12)
        theta, before = scaled_thresholds(unit, pres, round(self.recipe.l0_target * len(pres)))
        self.params["theta"].copy_(theta)
        return before / len(pres)

    @property
    def exported(self) -> Activation:
        return JumpReLU(self._bandwidth)

    def export(self, encoders: list[Tensor], b_enc: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        return encoders, b_enc, self.params["theta"].clamp_min(0)
