"""Which latents read which sites and write which: the one axis on which SAEs, transcoders, crosscoders and CLTs differ.

A dictionary reads the concatenation x = [x_0 | x_1 | ...] of the vectors at its input sites and writes the concatenation
of those at its output sites. Its latents come in blocks; a block reads one stretch of x and writes one stretch of y_hat:

    OneToOne   one block, one site to one site                         SAE, transcoder
    Joint      one block, all sites to all sites                       crosscoder (Lindsey et al. 2024)
    Causal     a block a site; block i reads x_i and writes y_i, ...   weakly causal crosscoder, cross-layer transcoder
                                                                       (Ameisen et al. 2025; Gemma Scope 2's crosscoders too)

An affine skip connection maps what a block reads to the stretch `skips`: for Causal the block's own site alone.
A new map is one class here with `blocks`, and its name in SiteMap.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Latents first..last of the dictionary, what they read, what they write, and where their skip goes."""

    latents: slice
    reads: slice
    writes: slice
    skips: slice

    @property
    def n_latents(self) -> int:
        return self.latents.stop - self.latents.start

    @property
    def d_in(self) -> int:
        return self.reads.stop - self.reads.start

    @property
    def d_out(self) -> int:
        return self.writes.stop - self.writes.start

    @property
    def own(self) -> slice:
        """The skip's stretch, counted from where the block begins to write."""
        return slice(self.skips.start - self.writes.start, self.skips.stop - self.writes.start)


def stretches(widths: tuple[int, ...]) -> list[slice]:
    """Where each site's vector stands in the concatenation."""
    ends = list(itertools.accumulate(widths))
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


@dataclass(frozen=True)
class OneToOne:
    """All latents read one site and write one site."""

    def blocks(self, widths_in: tuple[int, ...], widths_out: tuple[int, ...], d_sae: int) -> tuple[Block, ...]:
        if len(widths_in) != 1 or len(widths_out) != 1:
            raise ValueError(
                f"OneToOne has one site in and one out, got {len(widths_in)} and {len(widths_out)}: use Joint or Causal"
            )
        return Joint().blocks(widths_in, widths_out, d_sae)


@dataclass(frozen=True)
class Joint:
    """All latents read all input sites and write all output sites."""

    def blocks(self, widths_in: tuple[int, ...], widths_out: tuple[int, ...], d_sae: int) -> tuple[Block, ...]:
        whole = slice(0, sum(widths_out))
        return (Block(slice(0, d_sae), slice(0, sum(widths_in)), whole, whole),)


@dataclass(frozen=True)
class Causal:
    """As many latents a site; those of site i read it and write it and the later ones."""

    def blocks(self, widths_in: tuple[int, ...], widths_out: tuple[int, ...], d_sae: int) -> tuple[Block, ...]:
        n = len(widths_in)
        if n != len(widths_out):
            raise ValueError(f"Causal pairs input and output sites, got {n} and {len(widths_out)}")
        if d_sae % n:
            raise ValueError(f"Causal gives every site the same number of latents: {d_sae} is no multiple of {n} sites")
        per, end = d_sae // n, sum(widths_out)
        pairs = zip(stretches(widths_in), stretches(widths_out), strict=True)
        return tuple(Block(slice(i * per, (i + 1) * per), r, slice(w.start, end), w) for i, (r, w) in enumerate(pairs))


SiteMap = OneToOne | Joint | Causal
