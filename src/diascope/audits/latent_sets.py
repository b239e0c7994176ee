"""Latents set to given values at chosen tokens, many sets of latents in one forward pass: an edit of operators.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diascope.dictionaries import Dictionary


@dataclass(frozen=True)
class OfLatents:
    """Latents of a dictionary set to values, all of a set at once, R sets in one pass: y <- y + sum_j (wanted_j - f_j(x)) d_j.

    (One by one, as OfLatent has it, each would read what the one before it wrote.) The rest of y, the dictionary's error included, stays.

    wanted   [S], or [prompts, T, S]; sets   bool [R, S], row b of a batch has the set b mod R, of prompt b div R
    at       bool [n]: where it happens, of the pass's last n positions; everywhere where None
    along    [R, d]: goes as far as the one set does, along direction b mod R instead
    """

    dictionary: Dictionary
    wanted: Tensor
    sets: Tensor
    at: Tensor | None = None
    along: Tensor | None = None

    @property
    def repeats(self) -> int:
        """R: rows of a batch that belong to one prompt."""
        return len(self.sets) if self.along is None else len(self.along)

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        """What is added to y [B, T, d_out], of inputs x [B, T, d_in]."""
        d, R = self.dictionary, self.repeats
        if len(x) % R:
            raise ValueError(f"{len(x)} rows cannot share {R} sets of latents")
        j = self.sets.any(0).nonzero()[:, 0]  # all others stay
        f = _of(d, x, j)
        wanted = self.wanted[..., j].float()
        change = (wanted if wanted.dim() == 1 else wanted.repeat_interleave(R, 0)) - f
        sets = self.sets[:, j] if self.along is None else self.sets[:1, j].expand(R, -1)
        change = change * sets.repeat(len(x) // R, 1)[:, None]
        if self.at is not None:
            change = change * last(self.at, x.shape[1])[:, None]
        moved = change @ d.W_dec.detach()[j].float()
        if self.along is not None:
            directions = torch.nn.functional.normalize(self.along.float(), dim=-1).repeat(len(x) // R, 1)[:, None]
            moved = moved.norm(dim=-1, keepdim=True) * directions
        return moved.to(y.device)


def last(at: Tensor, T: int) -> Tensor:
    """bool [T]: `at` [n] for the last n of T positions, False before them."""
    return torch.cat([torch.zeros(max(T - len(at), 0), dtype=torch.bool), at[max(len(at) - T, 0) :].cpu()])


def _of(d: Dictionary, x: Tensor, j: Tensor) -> Tensor:
    """Activations of the latents j [k] on x [B, T, d_in], [B, T, k]: never all S of them side by side."""
    latents = d.encode(x.float().reshape(-1, x.shape[-1]).cpu())
    column = torch.full((d.d_sae,), -1).index_put((j,), torch.arange(len(j)))[latents.index]
    kept = column >= 0
    out = torch.zeros(x.shape[:-1].numel(), len(j))
    out[latents.rows[kept], column[kept]] = latents.value[kept]
    return out.view(*x.shape[:-1], len(j))


def masks(d: Dictionary, sets: Sequence[np.ndarray]) -> Tensor:
    """[R, S] bool of R sets of latents."""
    out = torch.zeros(len(sets), d.d_sae, dtype=torch.bool)
    for row, latents in enumerate(sets):
        out[row, torch.from_numpy(np.asarray(latents, np.int64))] = True
    return out
