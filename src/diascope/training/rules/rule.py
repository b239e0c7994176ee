"""What every training rule does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from diascope.dictionaries.activations import Activation, JumpReLU
from diascope.distributed import ALONE, Team
from diascope.kernels import SparseLatents
from diascope.training.pre_acts import PreActivations
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.sparsity import Sparsity


@dataclass(frozen=True)
class Gradients:
    """Derivatives of the whole loss at the candidates, and of the rule's own parameters."""

    pre: Tensor  # [nnz], through the product with the encoder
    bias: Tensor | None = None  # [nnz], in b_enc, where it differs from `pre`
    params: dict[str, Tensor] = field(default_factory=dict)


class Rule:
    """One activation in training. `params` are trained beside encoder and decoder; `weight` is the sparsity penalty's."""

    takes: ClassVar[tuple[type, ...]] = ()  # sparsity controls that make sense here
    frequency: ClassVar[bool] = False  # whether a frequency penalty does
    opening: ClassVar[float] = 1.0  # L0 aimed at in the first step, in targets

    def __init__(self, recipe: MemberRecipe, run: TrainingRecipe, team: Team = ALONE) -> None:
        self.recipe, self.run, self.team = recipe, run, team
        self.width = recipe.d_sae // team.latent.size  # latents of this process
        self.params: dict[str, Tensor] = {}
        self.sparsity: Sparsity | None = self._chosen()
        self.weight = float(getattr(self.sparsity, "start", 0.0))
        self.guess = 0.0  # the last batch's selection threshold: where the next search starts
        self.first = self.opening * recipe.l0_target  # L0 aimed at in the first step
        if recipe.frequency is not None and not self.frequency:
            raise ValueError(f"{self._name}: a frequency penalty acts through trained thresholds, so it needs JumpReLU")

    @property
    def _name(self) -> str:
        return f"{self.recipe.name} ({type(self.recipe.activation).__name__})"

    def _chosen(self) -> Sparsity | None:
        given = self.recipe.sparsity
        if given is None:
            return self.takes[0]() if self.takes else None
        if not isinstance(given, self.takes):
            names = ", ".join(t.__name__ for t in self.takes)
            reason = f"it takes {names}" if names else "its k fixes L0 already"
            raise ValueError(f"{self._name}: {type(given).__name__} makes no sense here, {reason}")
        return given

    def start(self, b_enc: Tensor) -> None:
        """Called once, when the member's weights have their starting values."""

    def adopt(self, b_enc: Tensor, theta: Tensor) -> Tensor:
        """Take over a finished dictionary's bias and thresholds [S], both in training's units; returns b_enc in training."""
        return b_enc

    def aim(self, now: float) -> float:
        """The L0 aimed at: from `first` linearly to the target."""
        return self.recipe.l0_target + (self.first - self.recipe.l0_target) * (1 - now)

    # -- a step
    def select(self, pres: PreActivations, now: float) -> SparseLatents:
        """Candidates: all entries that are active or feel a gradient."""
        raise NotImplementedError

    def values(self, near: SparseLatents) -> tuple[Tensor, Tensor]:
        """(activations [nnz], which of the candidates are active [nnz])."""
        return near.value, torch.ones_like(near.value, dtype=torch.bool)

    def gradients(
        self, near: SparseLatents, active: Tensor, df: Tensor, now: float, frozen: Callable[[Tensor], Tensor]
    ) -> Gradients:
        """From df [nnz] = dLoss/df at the candidates. `frozen(v)` is the derivative of |y - v D - b|^2 in v, D held fixed."""
        return Gradients(torch.where(active, df, 0.0))

    def after(self, l0: float) -> None:
        """Called once a step with the batch's mean L0."""
        if self.sparsity is not None:
            self.weight = self.sparsity.next(self.weight, l0, self.recipe.l0_target)

    # -- the end
    def calibrate(self, pres: PreActivations) -> float:
        """Bring the mean L0 on calibration rows to the target, where thresholds can, and return the L0 before."""
        return float(self.values(self.select(pres, 1.0))[1].sum()) / len(pres)

    def export(self, encoders: list[Tensor], b_enc: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """(encoders, b_enc, thresholds) of the finished dictionary, in training's units."""
        return encoders, b_enc, torch.zeros_like(b_enc)

    @property
    def exported(self) -> Activation:
        """The activation that the finished dictionary has."""
        return JumpReLU()


def scaled_thresholds(unit: Tensor, pres: PreActivations, k: int) -> tuple[Tensor, int]:
    """`unit` [S] times the factor at which k entries pass it, and how many pass `unit` itself."""

    def ratios(least: float) -> Tensor:
        near = pres.above(least * unit)
        return near.value / unit[near.index]

    found = ratios(0.5)
    if len(found) < k:  # `unit` was no guide: look at everything positive
        found = ratios(0.0)
    if not len(found):
        raise ValueError("no latent has a positive pre-activation on the calibration rows: its encoder is dead")
    bar = float(torch.topk(found, min(k, len(found)), sorted=False).values.min())
    return unit * bar, int((found > 1).sum())
