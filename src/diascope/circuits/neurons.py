"""The baseline: the MLP's own neurons as latents, so that a dictionary has to be better than no dictionary.

A gated neuron's activation a = act(g) u, g = x W_gate, u = x W_up, is split evenly between its two factors with
act(g) / g frozen (RelP: Jafari et al. 2025, arXiv:2508.21258): its covector is (act(g)/g u W_gate + act(g) W_up) / 2,
whose product with x is a again, so that these graphs close like those of dictionaries. A plain neuron a = act(x W + b)
takes a / (x W + b) as its slope. What a neuron writes passes the norm after the MLP, with its denominator frozen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.circuits.replacement import Latents
from diascope.models.frozen import FrozenPass
from diascope.models.neurons import neurons_of


class Neurons:
    """All neurons of all layers at the positions that dictionaries are trained on, as a Replacement."""

    def __init__(self, frozen: FrozenPass) -> None:
        self.frozen = frozen
        self._parts = [neurons_of(frozen, l) for l in range(frozen.n_layers)]
        rows = frozen.ordinary.nonzero().squeeze(1)
        n = self._parts[0].activation.shape[1]
        layer, position, index = torch.meshgrid(torch.arange(frozen.n_layers), rows, torch.arange(n), indexing="ij")
        activation, value = (torch.stack([getattr(p, name)[rows] for p in self._parts]) for name in ("activation", "value"))
        self.latents = Latents(*(t.reshape(-1) for t in (layer, position, index, activation, value)))
        self.names, self.firsts = ["MLP neurons"] * frozen.n_layers, [0] * frozen.n_layers
        self._rows, self._n = rows, n

    def covectors(self, ids: Tensor) -> Tensor:
        layers, positions, index = (t[ids] for t in (self.latents.layer, self.latents.position, self.latents.index))
        out = self.frozen.residuals.new_empty(len(ids), self.frozen.residuals.shape[-1])
        for layer in layers.unique().tolist():
            where = layers == layer
            out[where] = self._parts[layer].read(positions[where], index[where])
        return out

    def written(self, ids: Tensor) -> dict[int, Tensor]:
        layers, found = self.latents.layer[ids], {}
        for layer in layers.unique().tolist():
            where = layers == layer
            rows = self.frozen.residuals.new_zeros(len(ids), self.frozen.residuals.shape[-1])
            positions, index = self.latents.position[ids[where]], self.latents.index[ids[where]]
            rows[where] = self._parts[layer].write(positions, index) * self.latents.activation[ids[where], None]
            found[layer] = rows
        return found

    def contract(self, layer: int, G: Tensor) -> tuple[Tensor, Tensor]:
        rows, part = self._rows[self._rows < G.shape[1]], self._parts[layer]
        found = part.contracted(G[:, rows], rows) * part.activation[rows]  # [n, rows, neurons]
        first = layer * len(self._rows) * self._n
        return torch.arange(first, first + len(rows) * self._n), found.flatten(1)

    def skip(self, layer: int) -> None:
        return None

    def bias(self, layer: int) -> Tensor:
        return self._parts[layer].bias

    def error(self, layer: int) -> Tensor:
        part, rows = self._parts[layer], self._rows
        left = self.frozen.mlp_out[layer].clone()
        left[rows] -= part.everything()[rows] + part.bias
        return left
