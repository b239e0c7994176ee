"""Latents in compressed rows: one index and one value for each active latent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Columns(NamedTuple):
    """The same entries latent by latent: latent s has the entries `entry[start[s]:start[s+1]]`, in the order of their rows."""

    start: Tensor  # [S + 1] int64
    entry: Tensor  # [nnz] int64


class Product(NamedTuple):
    """f^T G [S, d] of latents [B, S] and rows [B, d], which need not be made."""

    latents: SparseLatents
    rows: Tensor


@dataclass(frozen=True)
class SparseLatents:
    """Active latents of B rows: row b holds `index[start[b]:start[b+1]]` with `value` beside; indices ascend in a row."""

    start: Tensor  # [B + 1] int64
    index: Tensor  # [nnz] int64
    value: Tensor  # [nnz]
    d_sae: int
    shape: tuple[int, ...] | None = None  # leading shape of the rows; None means [B]
    places: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What follows from start and index alone, once it was asked for: shared by all that differ in their values only."""

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of what was encoded, without its last dimension."""
        return (len(self),) if self.shape is None else self.shape

    @property
    def rows(self) -> Tensor:
        """The row of every entry [nnz]."""
        if "rows" not in self.places:
            rows = torch.arange(len(self), device=self.start.device)
            self.places["rows"] = torch.repeat_interleave(rows, self.counts, output_size=len(self.index))
        return self.places["rows"]  # type: ignore[no-any-return]

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
        return SparseLatents(self.start, self.index, value, self.d_sae, self.shape, self.places)

    def regrouped(self, start: Tensor) -> SparseLatents:
        """The same entries, parted into other rows [n + 1]; latent by latent they stand as before."""
        same = {name: self.places[name] for name in ("columns", "long") if name in self.places}
        return SparseLatents(start, self.index, self.value, self.d_sae, None, same)

    def kept(self, keep: Tensor) -> SparseLatents:
        """Only the entries where `keep` [nnz] is true."""
        before = starts(keep)[self.start]  # kept entries before each row
        chosen = keep.nonzero().squeeze(1)
        return SparseLatents(before, self.index[chosen], self.value[chosen], self.d_sae, self.shape)

    def part(self, first: int, last: int) -> SparseLatents:
        """The latents first..last (exclusive), counted from `first`."""
        if first == 0 and last == self.d_sae:
            return self
        found = self.kept((self.index >= first) & (self.index < last))
        return SparseLatents(found.start, found.index - first, found.value, last - first, self.shape)

    def strongest(self, k: int) -> SparseLatents:
        """Each row's `k` largest entries; of equal ones the first. See kernels.strongest."""
        width = int(self.counts.max()) if len(self) else 0
        if width <= k:
            return self
        rows = self.rows
        place = torch.arange(len(rows), device=rows.device) - self.start[rows]
        side = self.value.new_full((len(self), width), -torch.inf)
        side[rows, place] = self.value.detach()
        bar = side.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)  # -inf in rows that have fewer
        equal = side == bar
        room = k - (side > bar).sum(1, keepdim=True)
        keep = (side > bar) | (equal & (equal.cumsum(1) <= room))
        return self.kept(keep[rows, place])


def starts(counts: Tensor) -> Tensor:
    """Where each row begins [n + 1], of the rows' counts [n] (or of truth values, 1 where true)."""
    start = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=start[1:])
    return start


def from_flat(pre_acts: Tensor, flat: Tensor) -> SparseLatents:
    """The entries `flat` (ascending indices into pre_acts.view(-1)) of pre_acts [B, S] as sparse latents."""
    n_rows, d_sae = pre_acts.shape
    row = torch.div(flat, d_sae, rounding_mode="floor")
    start = starts(torch.bincount(row, minlength=n_rows))
    return SparseLatents(start, flat - row * d_sae, pre_acts.reshape(-1)[flat], d_sae)


def rows_together(width: int, device: torch.device) -> int:
    """How many rows of `width` pre-activations to make and search together: 64 MB in fp32 on a processor, 1 GB on a GPU.

    Fewer take less memory and make the product slower (8 MB by a third on two cores); more gain little.
    """
    return max(32, 2 ** (24 if device.type == "cpu" else 28) // max(width, 1))


def stacked(parts: list[SparseLatents]) -> SparseLatents:
    """Rows under one another as one."""
    if len(parts) == 1:
        return parts[0]
    start = starts(torch.cat([p.counts for p in parts]))
    index, value = (torch.cat([getattr(p, name) for p in parts]) for name in ("index", "value"))
    return SparseLatents(start, index, value, parts[0].d_sae)


def merged(parts: list[SparseLatents], d_sae: int) -> SparseLatents:
    """Blocks of latents side by side as one: the columns of each part follow those of the part before it."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0] + [p.d_sae for p in parts])
    rows = torch.cat([p.rows for p in parts])
    order = torch.argsort(rows, stable=True)
    index = torch.cat([p.index + int(first) for p, first in zip(parts, firsts[:-1], strict=True)])
    value = torch.cat([p.value for p in parts])
    start = starts(torch.bincount(rows, minlength=len(parts[0])))
    return SparseLatents(start, index[order], value[order], d_sae, parts[0].shape)
