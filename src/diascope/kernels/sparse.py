"""Latents in compressed rows, and products with them in plain torch (a CPU implementation; nothing is compiled).

With f [B, S] sparse (K entries a row), W [S, d], G [B, d] = dLoss/dy and y = f W:

    decode            y  = f W                           embedding_bag over the rows of f
    latent_gradient   df = (G W^T) at f's entries only   sampled_addmm
    weight_gradient   dW = f^T G                         embedding_bag over the columns of f

Each costs about 2 K d operations a row against 2 S d for the dense product, and every sum runs in a fixed order, so a
step repeats bit for bit on a given machine and thread count.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message=".*Sparse invariant checks are implicitly disabled")


@dataclass(frozen=True)
class SparseLatents:
    """Active latents of B rows: row b holds `index[start[b]:start[b+1]]` with `value` beside; indices ascend in a row."""

    start: Tensor  # [B + 1] int64
    index: Tensor  # [nnz] int64
    value: Tensor  # [nnz]
    d_sae: int
    shape: tuple[int, ...] | None = None  # leading shape of the rows; None means [B]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of what was encoded, without its last dimension."""
        return (len(self),) if self.shape is None else self.shape

    @property
    def rows(self) -> Tensor:
        """The row of every entry [nnz]."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.start.device), self.counts)

    @property
    def counts(self) -> Tensor:
        """Active latents a row [B]: the mean of it is L0."""
        return self.start[1:] - self.start[:-1]

    def dense(self) -> Tensor:
        """All latents [..., S], zeros included."""
        out = self.value.new_zeros(len(self), self.d_sae)
        return out.index_put((self.rows, self.index), self.value).view(*self.leading, self.d_sae)

    def with_values(self, value: Tensor) -> SparseLatents:
        """The same active latents with other values."""
        return SparseLatents(self.start, self.index, value, self.d_sae, self.shape)

    def kept(self, keep: Tensor) -> SparseLatents:
        """Only the entries where `keep` [nnz] is true."""
        counts = torch.zeros(len(self), dtype=torch.int64, device=keep.device).index_add_(
            0, self.rows[keep], keep.new_ones(int(keep.sum()), dtype=torch.int64)
        )
        return SparseLatents(_starts(counts), self.index[keep], self.value[keep], self.d_sae, self.shape)

    def part(self, first: int, last: int) -> SparseLatents:
        """The latents first..last (exclusive), counted from `first`."""
        if first == 0 and last == self.d_sae:
            return self
        found = self.kept((self.index >= first) & (self.index < last))
        return SparseLatents(found.start, found.index - first, found.value, last - first, self.shape)

    def strongest(self, k: int) -> SparseLatents:
        """Each row's `k` largest entries."""
        order = torch.argsort(self.value.detach(), descending=True, stable=True)
        order = order[torch.argsort(self.rows[order], stable=True)]  # by row, then by falling value
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - self.start[self.rows[order]]
        return self.kept(rank < k)


def _starts(counts: Tensor) -> Tensor:
    start = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=start[1:])
    return start


def from_flat(pre_acts: Tensor, flat: Tensor) -> SparseLatents:
    """The entries `flat` (ascending indices into pre_acts.view(-1)) of pre_acts [B, S] as sparse latents."""
    n_rows, d_sae = pre_acts.shape
    row = torch.div(flat, d_sae, rounding_mode="floor")
    start = _starts(torch.bincount(row, minlength=n_rows))
    return SparseLatents(start, flat - row * d_sae, pre_acts.reshape(-1)[flat], d_sae)


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """The entries of pre_acts [B, S] that lie strictly above `threshold` (a number or [S]); differentiable in pre_acts."""
    above = pre_acts.detach() > threshold
    if above.device.type == "cpu":  # NumPy finds them three times faster than torch
        flat = torch.from_numpy(np.flatnonzero(above.numpy()))
    else:
        flat = above.view(-1).nonzero().squeeze(1)
    return from_flat(pre_acts, flat)


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """The k largest positive entries of each row of pre_acts [B, S]; differentiable in pre_acts."""
    top = pre_acts.detach().topk(min(k, pre_acts.shape[1]), dim=1)
    columns, order = top.indices.sort(1)
    flat = columns + torch.arange(len(pre_acts), device=pre_acts.device)[:, None] * pre_acts.shape[1]
    return from_flat(pre_acts, flat[top.values.gather(1, order) > 0])


def merged(parts: list[SparseLatents], d_sae: int) -> SparseLatents:
    """Blocks of latents side by side as one: the columns of each part follow those of the part before it."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0] + [p.d_sae for p in parts])
    rows = torch.cat([p.rows for p in parts])
    order = torch.argsort(rows, stable=True)
    index = torch.cat([p.index + int(first) for p, first in zip(parts, firsts[:-1], strict=True)])
    value = torch.cat([p.value for p in parts])
    start = _starts(torch.bincount(rows, minlength=len(parts[0])))
    return SparseLatents(start, index[order], value[order], d_sae, parts[0].shape)


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """f W: [B, d] of latents [B, S] and weight [S, d]; differentiable in both."""
    if not len(latents.index):
        return weight.new_zeros(len(latents), weight.shape[1]) + 0 * weight[:1]
    value = latents.value.to(weight.dtype)
    return F.embedding_bag(latents.index, weight, latents.start[:-1], mode="sum", per_sample_weights=value)


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """(G W^T) at the entries of `latents` [nnz], of gradient [B, d] and weight [S, d]."""
    if not len(latents.index):
        return gradient.new_zeros(0)
    zeros = torch.zeros_like(latents.value, dtype=gradient.dtype)
    pattern = torch.sparse_csr_tensor(latents.start, latents.index, zeros, (len(latents), latents.d_sae))
    return torch.sparse.sampled_addmm(pattern, gradient, weight.t(), beta=0.0).values()


def weight_gradient(latents: SparseLatents, gradient: Tensor) -> Tensor:
    """f^T G: [S, d] of latents [B, S] and gradient [B, d]."""
    order = torch.argsort(latents.index, stable=True)
    start = _starts(torch.bincount(latents.index, minlength=latents.d_sae))
    if not len(order):
        return gradient.new_zeros(latents.d_sae, gradient.shape[1])
    value = latents.value[order].to(gradient.dtype)
    return F.embedding_bag(latents.rows[order], gradient, start[:-1], mode="sum", per_sample_weights=value)
