"""How sparse a member becomes: what pulls its L0 to the target, for activations that do not fix L0 themselves.

A penalty acts through dP/dn_b, what one more active latent of row b costs (JumpReLU: through the straight-through window
of the thresholds; ReLU and Gated: as the weight of the L1 norm, for which L0 has no gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.config import within


@dataclass(frozen=True)
class QuadraticL0:
    """lambda * c / L0* * (L0 - L0*)^2, the release's penalty (JumpReLU only)."""

    coefficient: float = 1.0
    """lambda, in units of the squared error of activations scaled to E|x|^2 = 1."""
    constant: float = 0.5
    """c: 2 is printed in the paper, 0.5 fits its own remark."""
    reduction: str = "batch"
    """"batch": L0 is the batch mean, squared once; "token": every row's own L0 is squared, then averaged."""

    def __post_init__(self) -> None:
        if self.reduction not in ("batch", "token"):
            raise ValueError(f"reduction is batch or token, not {self.reduction!r}")

    def cost(self, l0: Tensor, target: float, weight: float) -> Tensor:
        """dP/dn_b [B] (or one number for all rows), of the rows' l0 [B]."""
        seen = l0.mean() if self.reduction == "batch" else l0
        return self.coefficient * self.constant / target * 2 * (seen - target)

    def next(self, weight: float, l0: float, target: float) -> float:
        """The weight of the next step."""
        return weight


@dataclass(frozen=True)
class Coefficient:
    """A fixed weight: lambda * L0 for JumpReLU, lambda * |f|_1 for ReLU and Gated. L0 is then what comes out."""

    value: float = 1e-3
    """lambda, in units of the squared error of activations scaled to E|x|^2 = 1."""

    def cost(self, l0: Tensor, target: float, weight: float) -> Tensor:
        return torch.tensor(self.value, dtype=l0.dtype)

    def next(self, weight: float, l0: float, target: float) -> float:
        return weight


@dataclass(frozen=True)
class Controller:
    """A weight that follows the measured L0: each step it is multiplied by (L0 / L0*)^gain (integral control in the log)."""

    start: float = 1e-3
    """lambda of the first step."""
    gain: float = 0.02
    """How fast it reacts: with an L0 twice too high, lambda doubles in 1 / gain steps."""

    def __post_init__(self) -> None:
        within("Controller: start", self.start, 1e-12, 1e6)
        within("Controller: gain", self.gain, 1e-6, 1)

    def cost(self, l0: Tensor, target: float, weight: float) -> Tensor:
        return torch.tensor(weight, dtype=l0.dtype)

    def next(self, weight: float, l0: float, target: float) -> float:
        ratio = min(max(l0 / target, 0.1), 10.0)
        return min(max(weight * ratio**self.gain, 1e-9), 1e6)


Sparsity = QuadraticL0 | Coefficient | Controller


@dataclass(frozen=True)
class FrequencyPenalty:
    """lambda_f * sum_i w_i (1 + w_i / w0) over the batch's firing frequencies w_i (JumpReLU only)."""

    coefficient: float = 0.01
    """lambda_f; the release's is not published."""
    scale: float = 0.1
    """w0: latents that fire on more than this share of tokens pay more than linearly."""

    def cost(self, frequency: Tensor) -> Tensor:
        """What one more firing in the batch costs a latent [S], times the rows of the batch."""
        return self.coefficient * (1 + 2 * frequency / self.scale)
