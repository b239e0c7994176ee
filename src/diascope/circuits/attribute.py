"""Edges by a transposed sweep: covectors of targets taken back through the frozen model, all sources in one pass.

For a target with covector c on the residual stream at one place, G [T, d] = c at its position, 0 elsewhere. Going down,

1. at block l's output: edge from a source s that writes v_s there = <G[p_s], v_s> (latents, errors, b_dec);
2. a skip connection adds what G asks of the MLP's input: G += pull_read(G W_skip^T);
3. attention adds what G asks of earlier positions: G += pull_attention(G); its constants go to the layer's bias;
4. at the bottom: edge from token p = <G[p], x_0[p]>.

Every number that reaches the target is counted once, so the edges sum to its value; a graph keeps the difference as `residual`.
Targets go together, `chunk` at a time; memory is one chunk's G and its edges. No autograd, no copy of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.circuits.nodes import Nodes
from diascope.circuits.replacement import Replacement
from diascope.models.frozen import FrozenPass

BYTES = 2**26  # of one chunk's covectors and their copies inside attention


@dataclass(frozen=True)
class Start:
    """Covectors [n, d] at positions [n] (ascending), on the residual before block `layer` or, `middle`, on its x_mid."""

    covectors: Tensor
    positions: Tensor
    layer: int
    middle: bool
    constant: Tensor | None = None  # [n], what the norm before the target's read adds


class Sweep:
    """One frozen pass with its replacement and nodes, ready to be swept any number of times."""

    def __init__(self, frozen: FrozenPass, replacement: Replacement, nodes: Nodes) -> None:
        self.frozen, self.replacement, self.nodes = frozen, replacement, nodes
        self.errors = [replacement.error(l) for l in range(frozen.n_layers)]
        self.constants = [b.constants() for b in frozen.blocks]

    def chunk(self, positions: int) -> int:
        """How many targets at up to `positions` positions may go together."""
        f = self.frozen
        inside = f.blocks[0].attention.out.shape[0]  # all heads' values side by side
        each = 3 * positions * (f.residuals.shape[-1] + inside) + 6 * len(self.nodes)
        return max(1, BYTES // (each * f.residuals.element_size()))

    @torch.no_grad()
    def edges(
        self, start: Start, heads: dict[int, Tensor] | None = None, seen: Callable[[int, Tensor], None] = lambda layer, G: None
    ) -> Tensor:
        """[n, sources]: every edge into each target; zero where a source cannot reach it.

        `heads` [H] by layer weighs attention heads (all 1). `seen(layer, G)` gets the covectors [n, T', d] on what each
        layer's attention adds.
        """
        f, n, T = self.frozen, len(start.positions), int(start.positions.max()) + 1
        out = f.residuals.new_zeros(n, self.nodes.sources)
        G = f.residuals.new_zeros(n, T, f.residuals.shape[-1])
        G[torch.arange(n), start.positions] = start.covectors
        if start.constant is not None:
            out[:, self.nodes.bias[start.layer]] += start.constant
        if start.middle:
            seen(start.layer, G)
            G = self._attention(out, G, start.layer, heads)
        for l in range(start.layer - 1, -1, -1):
            asked = self._written(out, G, l)
            if asked is not None and not f.blocks[l].parallel:
                G, asked = G + asked, None
            seen(l, G)
            G = self._attention(out, G, l, heads)
            if asked is not None:
                G = G + asked
        out[:, :T] += torch.einsum("ntd,td->nt", G, f.residuals[0, :T])
        return out

    def _written(self, out: Tensor, G: Tensor, l: int) -> Tensor | None:
        """Count the sources that write at block l; what a skip asks of the residual that the MLP reads [n, T, d], or None."""
        f, nodes, T = self.frozen, self.nodes, G.shape[1]
        ids, found = self.replacement.contract(l, G)
        out[:, nodes.latent_column[ids]] += found
        out[:, nodes.errors[l] : nodes.errors[l] + T] += torch.einsum("ntd,td->nt", G, self.errors[l][:T])
        rows = f.ordinary[:T]
        out[:, nodes.bias[l]] += G[:, rows].sum(1) @ self.replacement.bias(l)
        W = self.replacement.skip(l)
        if W is None:
            return None
        C = (G @ W.t()) * rows[:, None]
        block = f.blocks[l]
        out[:, nodes.bias[l]] += C.sum(1) @ self.constants[l][1]
        return C if block.norm is None else block.norm.pull(C)

    def _attention(self, out: Tensor, G: Tensor, l: int, heads: dict[int, Tensor] | None) -> Tensor:
        f, T = self.frozen, G.shape[1]
        out[:, self.nodes.bias[l]] += torch.einsum("ntd,td->n", G, self.constants[l][0][:T])
        if (earlier := f.blocks[l].earlier) is not None:
            out[:, self.nodes.earlier[l]] += torch.einsum("ntd,td->n", G, earlier[:T])
        return G + f.blocks[l].pull_attention(G, heads=None if heads is None else heads.get(l))

    def of_latents(self, ids: Tensor) -> Start:
        """Latents `ids` of one layer, by ascending position, as targets."""
        found = self.replacement.latents
        layer = int(found.layer[ids[0]])
        block = self.frozen.blocks[layer]
        C = self.replacement.covectors(ids)
        constant = None if block.norm is None else C @ block.norm.bias
        return Start(block.pull_read(C, found.position[ids]), found.position[ids], layer, not block.parallel, constant)
