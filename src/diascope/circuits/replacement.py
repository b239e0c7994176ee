"""What stands for the MLPs in a graph: active latents, what they read and write, and what is left over as error.

A replacement knows one frozen pass. Per layer l and position p, over the positions that dictionaries are trained on,

    mlp_out = sum of what active latents write there + b_dec + x W_skip + error

and at the others (BOS, special tokens) all of mlp_out is error, so that nothing is dropped. A latent's `value` is what
its incoming edges must sum to: its pre-activation without the bias.

`Dictionaries` is made of one transcoder a layer (plain or skip; layers may lack one) or of a cross-layer transcoder;
`Neurons` (neurons.py), the baseline, of the MLPs' own neurons. Both answer to the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diascope.config import config_hash, to_data
from diascope.dictionaries import Dictionary, weights_hash
from diascope.dictionaries.activations import TopK
from diascope.dictionaries.site_maps import Block as Share
from diascope.dictionaries.site_maps import stretches
from diascope.kernels import select_above
from diascope.models.frozen import FrozenPass

ROOMS = 2**25  # bytes of written vectors that are kept rather than gathered anew for every chunk


@dataclass(frozen=True)
class Latents:
    """Active latents of one pass, ordered by layer, position, index: all [n]."""

    layer: Tensor
    position: Tensor  # within the pass (of a window: counted from its first token)
    index: Tensor  # within the layer's own dictionary, or within the CLT
    activation: Tensor
    value: Tensor  # what the incoming edges sum to

    def __len__(self) -> int:
        return len(self.layer)

    def of_layer(self, layer: int) -> slice:
        """Where the latents that read `layer` stand."""
        ends = torch.searchsorted(self.layer, torch.tensor([layer, layer + 1]))
        return slice(int(ends[0]), int(ends[1]))


class Replacement(Protocol):
    """What attribution asks of whatever stands for the MLPs."""

    latents: Latents
    names: list[str]  # what each layer's latents are called by: a title a layer
    firsts: list[int]  # the number of each layer's first latent: a cross-layer transcoder counts on through its layers

    def covectors(self, ids: Tensor) -> Tensor:
        """[k, d]: what latents `ids` [k] read, as covectors on what their MLP reads."""
        ...

    def written(self, ids: Tensor) -> dict[int, Tensor]:
        """{layer: [k, d]}: what latents `ids` [k] write, activation included (zero rows where one writes nothing)."""
        ...

    def contract(self, layer: int, G: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [m] of the latents that write at `layer`, and [n, m]: what each adds to covectors G [n, T, d] there."""
        ...

    def skip(self, layer: int) -> Tensor | None:
        """W_skip [d, d] of `layer`."""
        ...

    def bias(self, layer: int) -> Tensor:
        """b_dec [d] of `layer`."""
        ...

    def error(self, layer: int) -> Tensor:
        """[T, d]: what no latent, skip or bias accounts for at `layer`."""
        ...


class Dictionaries:
    """Transcoders of one frozen pass. Raises ValueError where they do not fit the model or one another."""

    def __init__(self, frozen: FrozenPass, dictionaries: Dictionary | Iterable[Dictionary]) -> None:
        given = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
        self.frozen, self.given = frozen, given
        self._readers: dict[int, tuple[Dictionary, int]] = {}  # by layer: whose latents read it, and which block of it
        for d in given:
            for g, layer in enumerate(_layers(d, frozen)):
                if layer in self._readers:
                    raise ValueError(f"two dictionaries read L{layer}.mlp_in: a graph has one for each layer")
                self._readers[layer] = (d, g)
        self.names = [self._readers[l][0].config.title if l in self._readers else "" for l in range(frozen.n_layers)]
        self.firsts = [self._first(l) for l in range(frozen.n_layers)]
        self._shares = {layer: list(self._writers(layer)) for layer in range(frozen.n_layers)}
        self.latents = self._encoded()
        self._rooms: dict[int, tuple[Tensor, Tensor]] = {}

    def _first(self, layer: int) -> int:
        """The number of the layer's first latent within its dictionary."""
        if layer not in self._readers:
            return 0
        d, g = self._readers[layer]
        return d.blocks[g].latents.start

    def _encoded(self) -> Latents:
        parts, rows = [], self.frozen.ordinary.nonzero().squeeze(1)
        for d in self.given:
            layers = _layers(d, self.frozen)
            found = d.encode(torch.cat([self.frozen.mlp_in[l][rows] for l in layers], -1).to(d.b_dec))
            for g, layer in enumerate(layers):
                block = d.blocks[g].latents
                mine = found.part(block.start, block.stop) if len(layers) > 1 else found
                index = mine.index + block.start
                value = mine.value - d.b_enc[index]
                parts.append((layer, torch.full_like(index, layer), rows[mine.rows], index, mine.value, value))
        parts.sort(key=lambda part: part[0])
        if not parts:
            raise ValueError("a graph needs at least one transcoder")
        return Latents(*(torch.cat([p[i] for p in parts]) for i in range(1, 6)))

    def _writers(self, layer: int) -> Iterable[tuple[int, Dictionary, Share, slice]]:
        """(layer they read, dictionary, block, stretch of its rows) of the latents that write at `layer`."""
        for reader, (d, g) in sorted(self._readers.items()):
            block = d.blocks[g]
            for place, site in zip(stretches(d.config.widths_out), d.config.writes):
                if site.layer == layer and block.writes.start <= place.start:
                    yield reader, d, block, slice(place.start - block.writes.start, place.stop - block.writes.start)

    def covectors(self, ids: Tensor) -> Tensor:
        out = self.frozen.residuals.new_empty(len(ids), self.frozen.residuals.shape[-1])
        layers = self.latents.layer[ids]
        for layer in layers.unique().tolist():
            (d, g), where = self._readers[layer], layers == layer
            own = self.latents.index[ids[where]] - d.blocks[g].latents.start
            out[where] = d.encoders[g][:, own].t().to(out)
        return out

    def written(self, ids: Tensor) -> dict[int, Tensor]:
        layers, found = self.latents.layer[ids], {}
        for layer in range(int(layers.min()) if len(ids) else 0, self.frozen.n_layers):
            rows = self.frozen.residuals.new_zeros(len(ids), self.frozen.residuals.shape[-1])
            for reader, d, block, part in self._shares[layer]:
                where = layers == reader
                rows[where] = self._rows(d, block, part, self.latents.index[ids[where]], self.latents.activation[ids[where]])
            if bool(rows.any()):
                found[layer] = rows
        return found

    def _rows(self, d: Dictionary, block: Share, part: slice, index: Tensor, activation: Tensor) -> Tensor:
        """[k, d]: what latents `index` [k] of one block write into one stretch, as active as `activation` [k]."""
        W, like = d.decoders[d.blocks.index(block)], self.frozen.residuals
        return W[index - block.latents.start, part].to(like) * activation[:, None].to(like)

    def encoded(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(position, index, activation) [n] of the latents of `layer` that are active where its MLP reads x [T, d].

        ValueError where they are chosen among those of several layers together, so that one layer alone says nothing.
        """
        d, g = self._readers[layer]
        block, rows = d.blocks[g], self.frozen.ordinary.nonzero().squeeze(1)
        if len(d.blocks) == 1:
            found = d.encode(x[rows].to(d.b_dec))
        elif isinstance(d.config.activation, TopK):
            raise ValueError(f"{d.config.title} takes its top latents of all layers together, which one layer cannot know")
        else:
            whole = x.new_zeros(len(rows), d.config.d_in)
            whole[:, block.reads] = x[rows]
            found = select_above(d.pre_acts(whole, g), d.threshold[block.latents].clamp_min(0))
        return rows[found.rows], found.index + block.latents.start, found.value.to(x)

    def spread(self, layer: int, position: Tensor, index: Tensor, activation: Tensor) -> dict[int, Tensor]:
        """{layer: [T, d]}: what latents of `layer` write, each at its position [n] and as active as `activation` [n]."""
        found = {}
        for written in range(layer, self.frozen.n_layers):
            for reader, d, block, part in self._shares[written]:
                if reader == layer:
                    found[written] = torch.zeros_like(self.frozen.residuals[0])
                    found[written].index_add_(0, position, self._rows(d, block, part, index, activation))
        return found

    def numbers(self, layer: int) -> range:
        """The numbers of the latents that read `layer`; none where no dictionary does."""
        if layer not in self._readers:
            return range(0)
        d, g = self._readers[layer]
        return range(d.blocks[g].latents.start, d.blocks[g].latents.stop)

    def contract(self, layer: int, G: Tensor) -> tuple[Tensor, Tensor]:
        ids, vectors = self._room(layer)
        T = G.shape[1]
        found = torch.bmm(G.transpose(0, 1), vectors[:T].transpose(1, 2))  # [T, n, K]
        real = ids[:T] >= 0
        return ids[:T][real], found.permute(1, 0, 2)[:, real]

    def _room(self, layer: int) -> tuple[Tensor, Tensor]:
        """Ids [T, K] (-1: none) and vectors [T, K, d] of what is written at `layer`, by position; of as many layers as ROOMS holds."""
        if layer not in self._rooms:
            if sum(vectors.nbytes for _, vectors in self._rooms.values()) > ROOMS:
                self._rooms.clear()
            parts = [
                (
                    torch.arange(mine.start, mine.stop),
                    self._rows(d, block, part, self.latents.index[mine], self.latents.activation[mine]),
                )
                for reader, d, block, part in self._shares[layer]
                for mine in (self.latents.of_layer(reader),)
            ]
            ids = torch.cat([p[0] for p in parts]) if parts else torch.zeros(0, dtype=torch.int64)
            position = self.latents.position[ids]
            counts = torch.bincount(position, minlength=self.frozen.length)
            order = torch.argsort(position, stable=True)
            place = torch.arange(len(ids)) - (counts.cumsum(0) - counts)[position[order]]
            room = torch.full((self.frozen.length, int(counts.max())), -1)
            room[position[order], place] = ids[order]
            vectors = self.frozen.residuals.new_zeros(*room.shape, self.frozen.residuals.shape[-1])
            if parts:
                vectors[position[order], place] = torch.cat([p[1] for p in parts])[order]
            self._rooms[layer] = room, vectors
        return self._rooms[layer]

    def skip(self, layer: int) -> Tensor | None:
        if layer not in self._readers:
            return None
        d, g = self._readers[layer]
        return d.skips[g].to(self.frozen.residuals) if d.config.skip else None

    def bias(self, layer: int) -> Tensor:
        found = self.frozen.residuals.new_zeros(self.frozen.residuals.shape[-1])
        if layer in self._readers:
            d, g = self._readers[layer]
            found = found + d.b_dec[d.blocks[g].skips].to(found)
        return found

    def error(self, layer: int) -> Tensor:
        left = self.frozen.mlp_out[layer].clone()
        left -= self._room(layer)[1].sum(1)
        rows = self.frozen.ordinary
        if (W := self.skip(layer)) is not None:
            left[rows] -= self.frozen.mlp_in[layer][rows] @ W
        left[rows] -= self.bias(layer)
        return left


def _layers(d: Dictionary, frozen: FrozenPass) -> list[int]:
    """The layers that `d` reads, which are those that it writes. ValueError unless it is a transcoder that fits."""
    reads, writes = d.config.reads, d.config.writes
    named = f"{d.config.title} reads {', '.join(d.config.sites_in)} and writes {', '.join(d.config.sites_out)}"
    if any(s.kind != "mlp_in" for s in reads) or any(s.kind != "mlp_out" for s in writes):
        raise ValueError(f"a graph is made of transcoders (mlp_in to mlp_out), and this {named}")
    layers = [s.layer for s in reads]
    if layers != [s.layer for s in writes] or len(d.blocks) != len(layers):
        raise ValueError(f"a transcoder writes the layers that it reads, each latent at its own or later ones; this {named}")
    if max(layers) >= frozen.n_layers:
        raise ValueError(f"{named}: the model has {frozen.n_layers} layers")
    width = frozen.residuals.shape[-1]
    if {*d.config.widths_in, *d.config.widths_out} != {width}:
        raise ValueError(f"{named}, of widths {d.config.widths_in}: the model's is {width}")
    return layers


def dictionaries_hash(dictionaries: Iterable[Dictionary]) -> str:
    """Hash of what the dictionaries are, in whatever order: weights and configs (the same tensors under TopK and JumpReLU are two)."""
    given = sorted(dictionaries, key=lambda d: [(s.layer, s.kind) for s in d.config.reads])
    return config_hash({"weights": weights_hash(given), "configs": [to_data(d.config) for d in given]})
