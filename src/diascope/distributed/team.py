"""Named axes of processes, and what training asks of them.

    dict     different members on different processes: nothing is exchanged but log lines
    latent   one member's latents over several processes: what they write is summed, candidates compete
    data     a batch's rows over several processes: gradients are summed

Alone, every axis has one process and every operation gives back what it was given. All processes of an axis must call the same
operations in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """The processes that differ from this one along an axis."""

    size: int = 1
    rank: int = 0
    group: Any = None

    def sum(self, t: Tensor) -> Tensor:
        """The sum of everybody's `t`, written over it."""
        if self.size > 1:
            dist.all_reduce(t, group=self.group)
        return t

    def total(self, number: float) -> float:
        """The sum of everybody's number, in float64."""
        return number if self.size == 1 else float(self.sum(torch.tensor(float(number), dtype=torch.float64)))

    def least(self, number: float) -> float:
        """The smallest of everybody's numbers."""
        if self.size == 1:
            return number
        t = torch.tensor(float(number), dtype=torch.float64)
        dist.all_reduce(t, dist.ReduceOp.MIN, group=self.group)
        return float(t)

    def gathered(self, t: Tensor) -> list[Tensor]:
        """Everybody's `t`, in order of rank; their first dimensions may differ."""
        if self.size == 1:
            return [t]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(t)]), group=self.group)
        most = max(int(n) for n in sizes)
        padded = torch.cat([t, t.new_zeros(most - len(t), *t.shape[1:])])
        out = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(out, padded.contiguous(), group=self.group)
        return [part[: int(n)] for part, n in zip(out, sizes, strict=True)]

    def objects(self, thing: Any) -> list[Any]:
        """Everybody's `thing`, in order of rank; for small ones."""
        if self.size == 1:
            return [thing]
        out: list[Any] = [None] * self.size
        dist.all_gather_object(out, thing, group=self.group)
        return out

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            dist.barrier(group=self.group)


@dataclass(frozen=True)
class Team:
    """This process's place: `member` is latent and data together, `everyone` all of them."""

    dict: Axis = field(default_factory=Axis)
    latent: Axis = field(default_factory=Axis)
    data: Axis = field(default_factory=Axis)
    member: Axis = field(default_factory=Axis)
    everyone: Axis = field(default_factory=Axis)

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.everyone.rank == 0


ALONE = Team()
