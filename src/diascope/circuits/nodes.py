"""The nodes of a graph and their order: what every edge's ends are numbered by.

    tokens [T] | for each layer: earlier (in a window) | latents | errors [T] | bias | final bias | targets

so that whatever a node may depend on stands before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from diascope.circuits.replacement import Replacement
from diascope.models.frozen import FrozenPass


class Kind(IntEnum):
    """What a node stands for."""

    TOKEN = 0  # a token's embedding
    LATENT = 1
    ERROR = 2  # mlp_out less what latents, skip and bias make of it
    EXCLUDED = 3  # mlp_out at a position that dictionaries are not trained on (BOS, special tokens)
    BIAS = 4  # a layer's constants: b_dec, and the biases of attention and norms
    EARLIER = 5  # what tokens before the window add to a layer through attention
    TARGET = 6


@dataclass(frozen=True)
class Nodes:
    """Columns [N] by node; `errors`, `bias`, `earlier` say by layer where these nodes begin."""

    kind: Tensor
    layer: Tensor  # -1 for tokens, the number of layers for the final bias and targets of logits
    position: Tensor  # -1 where a node has none (bias, earlier)
    index: Tensor  # latent, or token id, or -1
    latent_column: Tensor  # [latents] the node of each active latent
    errors: list[int]
    bias: list[int]  # [L + 1]
    earlier: list[int]  # [L], -1 without a window
    sources: int  # nodes before the targets

    def __len__(self) -> int:
        return len(self.kind)


def nodes_of(frozen: FrozenPass, replacement: Replacement, n_targets: int) -> Nodes:
    """All nodes of a pass, in their order; targets are filled in by who knows them."""
    T, L, found = frozen.length, frozen.n_layers, replacement.latents
    windowed = frozen.blocks[0].earlier is not None
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    at, columns, errors, bias, earlier = 0, [], [], [], []

    def add(kind: Tensor | int, layer: int, position: Tensor | int, index: Tensor | int, n: int) -> int:
        nonlocal at
        parts.append(tuple(v if isinstance(v, Tensor) else torch.full((n,), int(v)) for v in (kind, layer, position, index)))  # type: ignore[arg-type]
        at += n
        return at - n

    everywhere = torch.arange(T)
    add(Kind.TOKEN, -1, everywhere, frozen.tokens.cpu(), T)
    left_over = torch.where(frozen.ordinary.cpu(), int(Kind.ERROR), int(Kind.EXCLUDED))
    for l in range(L):
        earlier.append(add(Kind.EARLIER, l, -1, -1, 1) if windowed else -1)
        mine = found.of_layer(l)
        n = mine.stop - mine.start
        columns.append(torch.arange(n) + add(Kind.LATENT, l, found.position[mine], found.index[mine], n))
        errors.append(add(left_over, l, everywhere, -1, T))
        bias.append(add(Kind.BIAS, l, -1, -1, 1))
    bias.append(add(Kind.BIAS, L, -1, -1, 1))
    sources = add(Kind.TARGET, L, T - 1, -1, n_targets)
    kind, layer, position, index = (torch.cat([p[i] for p in parts]) for i in range(4))
    return Nodes(kind, layer, position, index, torch.cat(columns), errors, bias, earlier, sources)
