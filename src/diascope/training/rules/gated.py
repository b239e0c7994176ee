"""Gated (Rajamanoharan et al. 2024, arXiv:2404.16014), with the paper's shared directions.

    pi  = x_c E^T + b_enc                        the gate's pre-activation: a latent is on where pi > 0
    mag = exp(r) * (pi - b_enc) + b_mag          f = relu(mag) where it is on
    loss = |y - f D - b|^2 + weight * |relu(pi)|_1 + |y - relu(pi) D - b|^2 with D and b held fixed

The gate learns from the last two terms alone. Exported as the JumpReLU that it is: W_enc scaled by exp(r), bias b_mag,
threshold b_mag - exp(r) b_enc.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diascope.distributed import ALONE, Team
from diascope.kernels import SparseLatents, column_sums
from diascope.training.pre_acts import PreActivations
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.rules.relu import l1_slope
from diascope.training.rules.rule import Gradients, Rule
from diascope.training.sparsity import Coefficient, Controller


class GatedRule(Rule):
    takes = (Controller, Coefficient)

    def __init__(self, recipe: MemberRecipe, run: TrainingRecipe, team: Team = ALONE) -> None:
        super().__init__(recipe, run, team)
        self.params |= {"r": torch.zeros(self.width), "b_mag": torch.zeros(self.width)}
        self.b_enc = torch.zeros(self.width)  # the member's own, bound before every step

    def start(self, b_enc: Tensor) -> None:
        """At first the magnitude is the gate's own pre-activation."""
        self.params["b_mag"].copy_(b_enc)

    def adopt(self, b_enc: Tensor, theta: Tensor) -> Tensor:
        """With r = 0 the magnitude's bias is the dictionary's own, and the gate opens where the pre-activation passes theta."""
        self.params["r"].zero_()
        self.params["b_mag"].copy_(b_enc)
        return b_enc - theta

    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        return pres.above(0.0)

    def _magnitude(self, near: SparseLatents) -> tuple[Tensor, Tensor, Tensor]:
        j = near.index
        gain, product = self.params["r"][j].exp(), near.value - self.b_enc[j]
        return gain, product, gain * product + self.params["b_mag"][j]

    def values(self, near: SparseLatents) -> tuple[Tensor, Tensor]:
        magnitude = self._magnitude(near)[2]
        return magnitude.clamp_min(0), magnitude > 0

    def gradients(
        self, near: SparseLatents, active: Tensor, df: Tensor, now: float, frozen: Callable[[Tensor], Tensor]
    ) -> Gradients:
        gain, product, _ = self._magnitude(near)
        through = torch.where(active, df, 0.0)
        gate = frozen(near.value) + l1_slope(self, len(near) * self.team.data.size, now)

        def summed(entries: Tensor) -> Tensor:
            return column_sums(near.with_values(entries))

        own = {"r": summed(through * gain * product), "b_mag": summed(through)}
        return Gradients(through * gain + gate, gate, own)

    def export(self, encoders: list[Tensor], b_enc: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        gain = self.params["r"].to(b_enc.dtype).exp()
        b_mag = self.params["b_mag"].to(b_enc.dtype)
        scaled = [E * g[:, None] for E, g in zip(encoders, gain.split([len(E) for E in encoders]), strict=True)]
        return scaled, b_mag, b_mag - gain * b_enc
