"""The pre-activations of one batch, and the ways in which rules look for what is active in them.

They are never all in memory: the encoder product is made for some rows at a time, searched, and overwritten by the next. So
what a step needs besides parameters, gradients and moments does not grow with the batch times the width.

In bfloat16 the product costs half to a quarter of its fp32 time, but its results have eight bits. So there it only finds
candidates, a little more than asked for; their values are computed anew in fp32, and the choice is made among those.
What is lost: an entry whose rounding error exceeds the margin (1/64 of the bar) may be passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diascope.distributed import ALONE, Team
from diascope.kernels import SparseLatents, largest, merged, rows_together, select_above, stacked, strongest

MARGIN = 1 / 64  # four times what bfloat16 rounds a number by
SAMPLE = 64  # rows on which a bar is guessed


class Block(NamedTuple):
    """Latents that read the same columns: pre = x E^T + b."""

    x: Tensor  # [B, d]
    encoder: Tensor  # [F, d]
    bias: Tensor  # [F]


class PreActivations:
    """[B, S] over all blocks side by side. `exact` gives the fp32 values of candidates where the product is made in `dtype`."""

    def __init__(
        self,
        blocks: list[Block],
        dtype: torch.dtype | None = None,
        exact: Callable[[SparseLatents], Tensor] | None = None,
        team: Team = ALONE,
    ) -> None:
        self.team = team
        self.blocks = blocks if dtype is None else [Block(*(t.to(dtype) for t in b)) for b in blocks]
        self.exact = exact
        self.sizes = [len(b.bias) for b in blocks]
        self.aside: list[SparseLatents] = []  # of each block, once it was searched
        self._asked: tuple[list[Tensor], int] | None = None

    def __len__(self) -> int:
        return len(self.blocks[0].x)

    @property
    def rows(self) -> int:
        """Rows of the whole batch, over all processes."""
        return len(self) * self.team.data.size

    def ask_aside(self, among: list[Tensor], k: int) -> None:
        """Let the first search also find the k largest positive entries a row among some latents of each block: `aside`."""
        self._asked = among, k

    def above(self, bar: float | Tensor, *, exactly: bool = True) -> SparseLatents:
        """The entries strictly above `bar`: a number, or one a latent [S]; not below 0. Where what is a little below it does no harm,
        let it in: `exactly=False`."""
        least = bar if self.exact is None else bar * (1 - MARGIN)
        bars = least.split(self.sizes) if isinstance(least, Tensor) else [least] * len(self.blocks)
        near = self._searched(lambda pre, g: select_above(pre, bars[g]))
        if self.exact is None:
            return near
        near = near.with_values(self.exact(near))
        if not exactly:
            return near
        return near.kept(near.value > (bar[near.index] if isinstance(bar, Tensor) else bar))

    def largest(self, k: int) -> SparseLatents:
        """The k largest positive entries of each row."""
        more = k if self.exact is None else k + k // 8 + 8
        near = self._searched(lambda pre, g: largest(pre, more))
        if self.exact is not None:
            near = near.with_values(self.exact(near))
            near = near.kept(near.value > 0)
        near = strongest(near, k) if self.exact is not None or len(self.blocks) > 1 else near
        return strongest_of_all(near, k, self.team)

    def top(self, count: int, guess: float = float("inf")) -> tuple[SparseLatents, float | None]:
        """The `count` largest positive entries of the whole batch, ties included, and the least of them; of all of them, over
        all processes, these are this one's. Where fewer are positive: fewer, and None.

        `guess` is where their bar may lie (0: nobody knows): if it is about right, one search finds a superset, among which they are chosen.
        """
        of_all = self.team.member.total
        if 0 < guess < float("inf"):
            near = self.above(0.9 * guess, exactly=False)
            if count <= of_all(len(near.index)) <= 4 * count and (bar := self._least(near, count)) > 0.9 * guess:
                return near.kept(near.value >= bar), bar
        near = self.above(self._bar(round(1.5 * count)))
        if of_all(len(near.index)) < count:  # the sample was no guide either
            near = self.above(0.0)
        if of_all(len(near.index)) < count:
            return near, None
        bar = self._least(near, count)
        return near.kept(near.value >= bar), bar

    def _least(self, near: SparseLatents, count: int) -> float:
        """The least of the `count` largest values of all processes."""
        values = torch.cat(self.team.member.gathered(near.value)) if self.team.member.size > 1 else near.value
        return float(torch.topk(values, count, sorted=False).values.min())

    def _bar(self, count: int) -> float:
        """A bar that about `count` entries of the batch pass, from some of its rows; never below 0."""
        rows = torch.arange(0, len(self), max(1, len(self) // SAMPLE), device=self.blocks[0].x.device)
        sample = torch.cat([torch.addmm(b.bias, b.x[rows], b.encoder.t()).flatten() for b in self.blocks]).float()
        keep = min(len(sample), max(1, round(count * len(rows) / len(self) / self.team.member.size)))
        return max(0.0, self.team.member.least(float(torch.topk(sample, keep, sorted=False).values.min())))

    def _searched(self, search: Callable[[Tensor, int], SparseLatents]) -> SparseLatents:
        """`search(pre, block)` on a few rows of one block after another, put together."""
        found = []
        asked, self._asked = self._asked, None
        for g in range(len(self.blocks)):
            parts, aside = [], []
            for pre in self._chunks(g):
                parts.append(search(pre, g))
                if asked:
                    which = asked[0][g]
                    best = largest(pre[:, which], asked[1])
                    aside.append(SparseLatents(best.start, which[best.index], best.value, self.sizes[g]))
            found.append(stacked(parts))
            if asked:
                self.aside.append(strongest_of_all(stacked(aside), asked[1], self.team))
        return merged(found, sum(self.sizes))

    def _chunks(self, g: int) -> Iterator[Tensor]:
        """The product of block g, a few rows at a time, all in the same memory."""
        x, encoder, bias = self.blocks[g]
        step = rows_together(len(bias), x.device)
        room = x.new_empty(min(step, len(x)), len(bias))
        for rows in x.split(step):
            yield torch.addmm(bias, rows, encoder.t(), out=room[: len(rows)])


def strongest_of_all(near: SparseLatents, k: int, team: Team) -> SparseLatents:
    """Of at most k entries a row on each process of the latent axis, those among the row's k largest of all."""
    if team.latent.size == 1:
        return near
    mine = near.value.new_zeros(len(near), k)
    place = torch.arange(len(near.index), device=near.start.device) - near.start[near.rows]
    mine[near.rows, place] = near.value
    bars = torch.cat(team.latent.gathered(mine.t().contiguous())).topk(k, dim=0).values[-1]  # [B]
    return near.kept(near.value >= bars[near.rows])
