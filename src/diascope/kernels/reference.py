"""The kernels in plain torch: what the others are tested against, and what runs where no other does.

With f [B, S] sparse (K entries a row), W [S, d], G [B, d] = dLoss/dy and y = f W:

    decode            y  = f W                           embedding_bag over the rows of f
    latent_gradient   df = (G W^T) at f's entries only   sampled_addmm
    weight_gradient   dW = f^T G                         embedding_bag over the columns of f

Each costs about 2 K d operations a row against 2 S d for the dense product, and every sum runs in a fixed order, so a
step repeats bit for bit on a given machine and thread count.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.kernels.latents import Columns, Product, SparseLatents, from_flat, starts

warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message=".*Sparse invariant checks are implicitly disabled")


EPSILON = 1e-8  # beside the root of Adam's second moment


@dataclass(frozen=True)
class AdamStep:
    """The numbers of one step of Adam (Kingma & Ba 2015), the same for all parameters."""

    lr: float
    beta1: float
    beta2: float
    step: int  # counted from 0
    clip: float = 0.0  # largest |ratio| of an entry; 0 for none

    @property
    def first_correction(self) -> float:
        return 1 - self.beta1 ** (self.step + 1)

    @property
    def second_correction(self) -> float:
        return 1 - self.beta2 ** (self.step + 1)


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """The entries of pre_acts [B, S] that lie strictly above `threshold` (a number or [S])."""
    pre_acts = pre_acts.float() if pre_acts.dtype == torch.bfloat16 else pre_acts
    return from_flat(pre_acts, (pre_acts > threshold).view(-1).nonzero().squeeze(1))


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """The k largest positive entries of each row of pre_acts [B, S]; differentiable in pre_acts."""
    pre_acts = pre_acts.float() if pre_acts.dtype == torch.bfloat16 else pre_acts
    top = pre_acts.topk(min(k, pre_acts.shape[1]), dim=1)
    columns, order = top.indices.sort(1)
    flat = columns + torch.arange(len(pre_acts), device=pre_acts.device)[:, None] * pre_acts.shape[1]
    return from_flat(pre_acts, flat[top.values.gather(1, order) > 0])


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """f W: [B, d] of latents [B, S] and weight [S, d]."""
    if not len(latents.index):
        return weight.new_zeros(len(latents), weight.shape[1])
    value = latents.value.to(weight.dtype)
    return F.embedding_bag(latents.index, weight, latents.start[:-1], mode="sum", per_sample_weights=value)


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """(G W^T) at the entries of `latents` [nnz], of gradient [B, d] and weight [S, d]."""
    if not len(latents.index):
        return gradient.new_zeros(0)
    zeros = torch.zeros_like(latents.value, dtype=gradient.dtype)
    pattern = torch.sparse_csr_tensor(latents.start, latents.index, zeros, (len(latents), latents.d_sae))
    return torch.sparse.sampled_addmm(pattern, gradient, weight.t(), beta=0.0).values()


def columns(latents: SparseLatents) -> Columns:
    """The entries latent by latent."""
    start = starts(torch.bincount(latents.index, minlength=latents.d_sae))
    return Columns(start, torch.argsort(latents.index, stable=True))


def column_sums(latents: SparseLatents, columns: Columns) -> Tensor:
    """The sum of each latent's entries [S]."""
    return latents.value.new_zeros(latents.d_sae).index_add_(0, latents.index, latents.value)


def weight_gradient(latents: SparseLatents, gradient: Tensor, columns: Columns) -> Tensor:
    """f^T G: [S, d] of latents [B, S] and gradient [B, d]."""
    start, entry = columns
    if not len(entry):
        return gradient.new_zeros(latents.d_sae, gradient.shape[1])
    value = latents.value[entry].to(gradient.dtype)
    return F.embedding_bag(latents.rows[entry], gradient, start[:-1], mode="sum", per_sample_weights=value)


def strongest(latents: SparseLatents, k: int) -> SparseLatents:
    """Each row's k largest entries, which are positive; of equal ones the first."""
    return latents.strongest(k)


def prefix_errors(written: Tensor, base: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and error of nested prefixes, of what each of their P segments writes [B, P, d]; `written` is used up.

    y_hat_p = base + the segments up to p, base [d] or [B, d]; loss = sum_p w_p |y_hat_p - target|^2 / B. Returns the loss's
    derivative in each segment's output [B, P, d] (in the first: in base), and the error of the longest prefix [B, d].
    """
    error = written.cumsum(1) + (base[:, None] if base.ndim == 2 else base) - target[:, None]
    gradient = (2 / len(target)) * weights.to(error)[None, :, None] * error
    return gradient.flip(1).cumsum(1).flip(1), error[:, -1]


def adam(
    value: Tensor, gradient: Tensor, second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """One step of Adam on `value` [n, d] in place, with its moments; `gradient` is used up.

    With `unit_rows` the part of the gradient along each row is taken out first, and rows have length 1 afterwards.
    """
    g = gradient
    if unit_rows:
        g -= (g * value).sum(1, keepdim=True) * value
    second.mul_(step.beta2).addcmul_(g, g, value=1 - step.beta2)
    if first is not None:
        g = first.lerp_(g, 1 - step.beta1).div(step.first_correction)
    ratio = g.div_(second.div(step.second_correction).sqrt_().add_(EPSILON))
    if step.clip:
        ratio.clamp_(-step.clip, step.clip)
    value.add_(ratio, alpha=-step.lr)
    if unit_rows:
        value /= value.norm(dim=1, keepdim=True)


def adam_of(
    value: Tensor,
    products: Sequence[tuple[Product, Columns]],
    second: Tensor,
    first: Tensor | None,
    step: AdamStep,
    *,
    unit_rows: bool = False,
) -> None:
    """`adam` with the sum of some products (one or two) as its gradient."""
    gradient = weight_gradient(*products[0][0], products[0][1])
    for (latents, rows), columns in products[1:]:
        gradient += weight_gradient(latents, rows, columns)
    adam(value, gradient, second, first, step, unit_rows=unit_rows)
