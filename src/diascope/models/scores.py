"""Attention scores of one layer of a frozen pass as a product of two linear maps: score[h, q, k] = q_h(x_q) . k_h(x_k).

With the denominators of query and key norms frozen, q_h and k_h are affine in what the attention reads: W_Q or W_K, the
norm's gain, the rotation of the position, and the scaling. The softmax of these scores must be the pattern that the model
computed; where it is not (another positional encoding), the layer is refused with the distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.frozen import Attention, Block, FrozenPass, affine
from diascope.models.parts import child

TOLERANCE = 1e-4  # largest difference of a probability


@dataclass(frozen=True)
class Side:
    """One side's affine maps by head and position: z[h, p] = x_p W[h] (diagonal, rotated) + b, as functions."""

    weight: Tensor  # [H, d, d_head]
    bias: Tensor  # [H, d_head]
    gain: Tensor  # [H, T, d_head]: the norm's gain and frozen denominator; ones without a norm
    rotation: Tensor  # [T, d_head, d_head]

    def maps(self, head: int, position: int) -> tuple[Tensor, Tensor]:
        """(M [d, d_head], c [d_head]): z = x M + c at one head and position."""
        turn = self.gain[head, position][:, None] * self.rotation[position]
        return self.weight[head] @ turn, self.bias[head] @ turn

    def of(self, x: Tensor) -> Tensor:
        """z [H, T, d_head] of what the attention reads, x [T, d]."""
        z = torch.einsum("td,hdk->htk", x, self.weight) + self.bias[:, None]
        return torch.einsum("htk,tkj->htj", z * self.gain, self.rotation)


@dataclass(frozen=True)
class AttentionScores:
    """Both sides, the scaling included in the queries'; `allowed` [T, T] says where a key may be looked at."""

    queries: Side
    keys: Side
    allowed: Tensor
    distance: float  # of the softmax from the pattern


@torch.no_grad()
def scores_of(frozen: FrozenPass, layer: int) -> AttentionScores:
    """The scores of one layer. Raises ValueError where they cannot be written so."""
    if frozen.first:
        raise ValueError("attention scores need the whole prompt: trace without a window")
    block, module = frozen.blocks[layer], frozen.attention_modules[layer]
    x = frozen.residuals[layer]
    x = x if block.before is None else block.before.push(x) + block.before.bias
    rotation = _rotations(frozen, layer, x)
    a = block.attention
    q = _side(module, "q", x, a, rotation)
    k = _side(module, "k", x, a, rotation)
    scaling = float(getattr(module, "scaling", None) or a.shape[2] ** -0.5)
    q = Side(q.weight * scaling, q.bias * scaling, q.gain, rotation)
    group = a.shape[1]
    weight, bias, gain = (t.repeat_interleave(group, 0) for t in (k.weight, k.bias, k.gain))
    k = Side(weight, bias, gain, rotation)
    raw = q.of(x) @ k.of(x).transpose(1, 2)
    if cap := getattr(module, "attn_logit_softcapping", None):
        raw = torch.tanh(raw / cap) * cap
    allowed = (a.pattern > 0).any(0) | torch.eye(len(x), dtype=torch.bool)
    found = raw.masked_fill(~allowed, -torch.inf).softmax(-1)
    distance = float((found - a.pattern).abs().max())
    if not distance < TOLERANCE:
        raise ValueError(
            f"the attention scores of layer {layer} of {frozen.model.name} come out {distance:.1e} away from its pattern"
        )
    return AttentionScores(q, k, allowed, distance)


def _side(module: nn.Module, side: str, x: Tensor, a: Attention, rotation: Tensor) -> Side:
    projection = child(module, (f"{side}_proj",))
    if projection is None:
        raise ValueError(f"{type(module).__name__} has no {side}_proj: its scores cannot be attributed")
    W, b = affine(projection, x.shape[-1], x)
    d_head = a.shape[2]
    heads = W.shape[1] // d_head
    z = (x @ W + b).view(len(x), heads, d_head)
    gain = torch.ones_like(z)
    norm: Any = child(module, (f"{side}_norm", f"{side}_layernorm"))
    if norm is not None:
        whole = norm.weight.shape[-1] == heads * d_head and heads > 1  # over all heads together
        normed = norm(z.flatten(1)).view_as(z) if whole else norm(z)
        gain = torch.where(z.abs() > 1e-12, normed / torch.where(z.abs() > 1e-12, z, torch.ones_like(z)), 0)
    return Side(W.view(-1, heads, d_head).transpose(0, 1), b.view(heads, d_head), gain.transpose(0, 1), rotation)


def _rotations(frozen: FrozenPass, layer: int, like: Tensor) -> Tensor:
    """[T, d_head, d_head]: what the model's rotary embedding does at each position, asked of the identity."""
    given: Any = frozen.positions_given[layer]
    if given is None:
        raise ValueError(f"{frozen.model.name} gives its attention no rotary embedding that could be asked")
    cos, sin = (t[0].to(like) for t in given)
    d_head = frozen.blocks[layer].attention.shape[2]
    if cos.shape[-1] != d_head:
        raise ValueError(
            f"{frozen.model.name} turns only {cos.shape[-1]} of {d_head} dimensions of a head, which is not supported here"
        )
    eye = torch.eye(d_head, dtype=like.dtype)
    turned = torch.cat([-eye[:, d_head // 2 :], eye[:, : d_head // 2]], 1)
    return eye * cos[:, None] + turned * sin[:, None]


def score(scores: AttentionScores, block: Block, x: Tensor, head: int, query: int, key: int) -> float:
    """One score, of residuals x [T, d] before the block."""
    h = x if block.before is None else block.before.push(x) + block.before.bias
    (Mq, cq), (Mk, ck) = scores.queries.maps(head, query), scores.keys.maps(head, key)
    return float((h[query] @ Mq + cq) @ (h[key] @ Mk + ck))
