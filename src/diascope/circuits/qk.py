"""Why a head looks where it looks: which pairs of sources make an attention score, and which heads carry an edge.

score(h, q, k) = q_h(x_q) . k_h(x_k) is bilinear in the residuals, and the residual at each place is a sum over sources.
One sweep with d_head covectors gives what every source adds to q_h, another what it adds to k_h less the mean over the
keys (softmax does not see a shift); their products are the contributions of all pairs, biases and errors included, and
sum to the centred score exactly. Kamath et al. 2025 (Tracing attention computation); the centring is ours.

`head_loadings`: an edge goes up through attention layers; in each, part of it bypasses attention and the rest passes one
head or another. With G the target's covectors and x the source's vector, both at layer l: loading(l, h) = <G, head_h(x)>.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.circuits.attribute import Start, Sweep
from diascope.models.scores import scores_of


@dataclass(frozen=True)
class Pairs:
    """What makes one score, the strongest pairs first."""

    score: float
    centred: float  # less the mean over the keys that the query may look at
    query: list[int]  # nodes
    key: list[int]
    amount: list[float]
    rest: float  # of all other pairs together


@torch.no_grad()
def attention_pairs(sweep: Sweep, layer: int, head: int, query: int, key: int, *, most: int = 20, keep: int = 1024) -> Pairs:
    """The pairs of sources that make `head` of `layer` look from position `query` to `key` (as in the pass).

    `keep`: sources considered on each side, those of the longest vectors; all others are counted in `rest`.
    ValueError where the query may not look at the key, or the head does not exist.
    """
    f = sweep.frozen
    heads = f.blocks[layer].attention.pattern.shape[0]
    if not 0 <= head < heads:
        raise ValueError(f"layer {layer} has heads 0 to {heads - 1}, not {head}")
    s = scores_of(f, layer)
    if not bool(s.allowed[query, key]):
        raise ValueError(f"position {query} of layer {layer} may not look at position {key}")
    allowed = s.allowed[query].nonzero().squeeze(1)
    q = _side_edges(sweep, layer, s.queries.maps(head, query), torch.tensor([query]))
    k_all = sum(_side_edges(sweep, layer, s.keys.maps(head, int(p)), p[None]) for p in allowed) / len(allowed)
    k = _side_edges(sweep, layer, s.keys.maps(head, key), torch.tensor([key]))
    whole, centred = float(q.sum(1) @ k.sum(1)), float(q.sum(1) @ (k - k_all).sum(1))
    return _strongest(q, k - k_all, whole, centred, most, keep)


def _side_edges(sweep: Sweep, layer: int, maps: tuple[Tensor, Tensor], position: Tensor) -> Tensor:
    """[d_head, sources]: what each source adds to one side's vector; its own bias goes to the layer's."""
    M, c = maps
    before = sweep.frozen.blocks[layer].before
    C = M.t()
    constant = c if before is None else c + before.bias @ M
    if before is not None:
        C = before.pull_at(C, before.scale[position].expand(len(C), 1))
    out = sweep.edges(Start(C, position.expand(len(C)), layer, False))
    out[:, sweep.nodes.bias[layer]] += constant
    return out


def _strongest(q: Tensor, k: Tensor, whole: float, centred: float, most: int, keep: int) -> Pairs:
    a, b = (side.norm(dim=0).topk(min(keep, side.shape[1])).indices for side in (q, k))
    amounts = q[:, a].t() @ k[:, b]
    flat = amounts.abs().flatten().topk(min(most, amounts.numel())).indices
    i, j = flat // len(b), flat % len(b)
    chosen = amounts[i, j]
    return Pairs(whole, centred, a[i].tolist(), b[j].tolist(), chosen.tolist(), centred - float(chosen.sum()))


@torch.no_grad()
def head_loadings(sweep: Sweep, source: dict[int, Tensor], start: Start) -> Tensor:
    """[L, H]: how much of one edge passes each head. `source` {layer: [T, d]} is what the source writes after each block
    (-1: before the first); `start` holds one target."""
    f, G = sweep.frozen, dict[int, Tensor]()
    sweep.edges(start, seen=lambda layer, covectors: G.__setitem__(layer, covectors[0]))
    H = f.blocks[0].attention.pattern.shape[0]
    x = source.get(-1, torch.zeros_like(f.residuals[0]))[None]
    out = f.residuals.new_zeros(f.n_layers, H)
    for l in sorted(G):
        block, W = f.blocks[l], sweep.replacement.skip(l)
        each = _by_head(sweep, l, x if block.before is None else block.before.push(x))
        T = len(G[l])
        out[l] = torch.einsum("htd,td->h", each[:, :T], G[l])
        mid = x + each.sum(0)
        read = x if block.parallel else mid
        x = mid
        if W is not None:
            x = x + ((read if block.norm is None else block.norm.push(read)) @ W) * f.ordinary[:, None]
        x = x + source[l] if l in source else x
    return out


def _by_head(sweep: Sweep, layer: int, h: Tensor) -> Tensor:
    """[H, T, d]: what each head adds to x_mid of h [1, T, d] at the attention's input."""
    block = sweep.frozen.blocks[layer]
    a = block.attention
    kv, group, d_head = a.shape
    v = (h[0] @ a.values).view(-1, kv, d_head).permute(1, 0, 2).repeat_interleave(group, 0)
    y = torch.einsum("htk,hkd->htd", a.pattern @ v, a.out.view(kv * group, d_head, -1))
    return y if block.after is None else block.after.push(y)
