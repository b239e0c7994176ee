"""The neurons of one block's MLP in a frozen pass: what they were, read and wrote there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.models.frozen import FrozenPass, Norm, affine
from diascope.models.parts import child

PLAIN = (("c_fc", "dense_h_to_4h", "fc1", "fc_in"), ("c_proj", "dense_4h_to_h", "fc2", "fc_out"))


@dataclass(frozen=True)
class NeuronLayer:
    """a = (slopes[0] x W[0] + slopes[1] x W[1]) with slopes [T, N] frozen; what is written passes `after`, frozen."""

    activation: Tensor  # [T, N]
    value: Tensor  # [T, N], what is linear in x: the activation, less what a bias makes of it
    reads: tuple[tuple[Tensor, Tensor], ...]  # (W [d, N], slope [T, N]) pairs
    out: Tensor  # [N, d]
    after: Norm | None
    bias: Tensor  # [d]

    def read(self, positions: Tensor, index: Tensor) -> Tensor:
        """Covectors [k, d] of neurons `index` [k] at `positions` [k], on what the MLP reads."""
        found = (W[:, index].t() * slope[positions, index, None] for W, slope in self.reads)
        return torch.stack(list(found)).sum(0)

    def write(self, positions: Tensor, index: Tensor) -> Tensor:
        """[k, d]: what neurons `index` at `positions` write at activation 1."""
        rows = self.out[index]
        return rows if self.after is None else rows * self.after.gain * self.after.scale[positions]

    def contracted(self, G: Tensor, positions: Tensor) -> Tensor:
        """[n, R, N]: what each neuron at `positions` [R] adds at activation 1 to covectors G [n, R, d] on mlp_out."""
        if self.after is not None:
            G = self.after.pull_at(G, self.after.scale[positions])
        return G @ self.out.t()

    def everything(self) -> Tensor:
        """[T, d]: what all neurons write together."""
        y = self.activation @ self.out
        return y if self.after is None else self.after.push(y)


@torch.no_grad()
def neurons_of(frozen: FrozenPass, layer: int) -> NeuronLayer:
    """The neurons of block `layer`. Raises ValueError for an MLP that is neither gated nor plain (a mixture of experts)."""
    block, x = frozen.blocks[layer], frozen.mlp_in[layer]
    mlp, d = block.mlp, x.shape[-1]
    factors, down = _factors(mlp, d, x), child(mlp, ("down_proj",))
    act = next((m for n, m in mlp.named_children() if n in ("act_fn", "act", "activation_fn")), None)
    if act is not None and down is not None and factors is not None:
        (Wg, bg), (Wu, bu) = factors
        g, u = x @ Wg + bg, x @ Wu + bu
        ratio = act(g) / torch.where(g.abs() < 1e-12, torch.ones_like(g), g)
        activation = act(g) * u
        reads = ((Wg, ratio * u / 2), (Wu, act(g) / 2))
        value = activation - (ratio * u * bg + act(g) * bu) / 2
    elif act is not None and (first := child(mlp, PLAIN[0])) is not None and (down := child(mlp, PLAIN[1])) is not None:
        W, b = affine(first, d, x)
        z = x @ W + b
        activation = act(z)
        slope = activation / torch.where(z.abs() < 1e-12, torch.ones_like(z), z)
        reads, value = ((W, slope),), activation - slope * b
    else:
        raise ValueError(f"the neurons of {type(mlp).__name__} cannot be nodes: it is neither a gated nor a plain MLP")
    out, bias = affine(down, activation.shape[1], x)
    after = None
    if block.mlp_after is not None:
        after = Norm.of(block.mlp_after, mlp(x), frozen.mlp_out[layer])
        if bool(bias.any()):
            raise ValueError(f"{type(mlp).__name__} has a bias before a norm: its neurons cannot be nodes")
        bias = after.bias
    return NeuronLayer(activation, value, reads, out, after, bias)


def _factors(mlp: nn.Module, d: int, like: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """(W [d, N], b [N]) of the gate and of what it multiplies, also where one product makes both; None where there is no gate."""
    if (both := child(mlp, ("gate_up_proj",))) is not None:
        W, b = affine(both, d, like)
        half = W.shape[1] // 2
        return (W[:, :half], b[:half]), (W[:, half:], b[half:])
    gate, up = child(mlp, ("gate_proj",)), child(mlp, ("up_proj",))
    return None if gate is None or up is None else (affine(gate, d, like), affine(up, d, like))
