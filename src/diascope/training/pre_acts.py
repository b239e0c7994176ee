"""The pre-activations of one batch, a dense matrix a block, and the ways in which rules look for what is active in them.

In bfloat16 the encoder product costs half to a quarter of its fp32 time, but its results have eight bits. So there it only
finds candidates, a little more than asked for; their values are computed anew in fp32, and the choice is made among those.
What is lost: an entry whose rounding error exceeds the margin (1/64 of the bar) may be passed over.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diascope.kernels import SparseLatents, largest, merged, select_above

MARGIN = 1 / 64  # four times what bfloat16 rounds a number by


class PreActivations:
    """`dense` holds [B, F] of every block; `exact` gives the fp32 values of candidates where the product was rounded."""

    def __init__(self, dense: list[Tensor], exact: Callable[[SparseLatents], Tensor] | None = None) -> None:
        self.dense, self.exact = dense, exact
        self.sizes = [p.shape[1] for p in dense]

    def __len__(self) -> int:
        return len(self.dense[0])

    def above(self, bar: float | Tensor) -> SparseLatents:
        """The entries strictly above `bar`: a number, or one a latent [S]; not below 0."""
        least = bar if self.exact is None else bar * (1 - MARGIN)
        bars = least.split(self.sizes) if isinstance(least, Tensor) else [least] * len(self.dense)
        near = merged([select_above(p, b) for p, b in zip(self.dense, bars, strict=True)], sum(self.sizes))
        if self.exact is None:
            return near
        near = near.with_values(self.exact(near))
        return near.kept(near.value > (bar[near.index] if isinstance(bar, Tensor) else bar))

    def largest(self, k: int) -> SparseLatents:
        """The k largest positive entries of each row."""
        more = k if self.exact is None else k + k // 8 + 8
        near = merged([largest(p, more) for p in self.dense], sum(self.sizes))
        if self.exact is not None:
            near = near.with_values(self.exact(near))
            near = near.kept(near.value > 0)
        return near.strongest(k) if self.exact is not None or len(self.dense) > 1 else near

    def guess(self, count: int) -> float:
        """A bar that about `count` entries of the batch pass, from every 61st entry; never below 0."""
        stride = 61 if all(size % 61 for size in self.sizes) else 1  # a stride that divides the width would see few latents
        sample = np.concatenate([p.view(-1)[::stride].float().numpy() for p in self.dense])
        keep = min(len(sample) - 1, int(count / stride) + 1)
        return max(0.0, float(-np.partition(-sample, keep)[keep]))

    def total(self) -> Tensor:
        """All entries in one row, for statistics."""
        return torch.cat([p.flatten() for p in self.dense])
