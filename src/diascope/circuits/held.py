"""Nodes held at given values, whatever their inputs: what the model then does, and what a graph predicts.

Held, in a pass that goes up through the layers, x what an MLP reads now and y what it writes now:

1. A latent held at v, now active as a (0 where it is not): (v - a) times what it writes is added, at its own layer and,
   of a cross-layer transcoder, at later ones.
2. An error held at e: it is now y - (what latents that are active now write there + b_dec + x W_skip), and e takes its place.

All latents and the error of a layer held at another prompt's values make the MLP write what it writes there (its skip alone
still answers). That is not the intervention of effects.py, which adds a change that is fixed beforehand, and lets a latent
answer on top of it.

Predicted by the frozen linear model, pushed forward: held latents change by v - activation and errors by e - error; `direct`
nothing else changes, `total` every expanded latent that is not held answers with what it reads, in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.circuits.effects import MODES
from diascope.circuits.replacement import Dictionaries
from diascope.edits import Edit
from diascope.models.frozen import Block, FrozenPass, Norm
from diascope.sites import Site

Active = tuple[Tensor, Tensor, Tensor]  # position, index, activation [n] of latents of one layer


@dataclass(frozen=True)
class Held:
    """Values of the nodes of one layer: of latents (position, index, value [k]) and of errors (places [m], vectors [m, d]).

    At the positions `whole` all other latents are held at 0, those too that switch on only in the pass itself.
    """

    position: Tensor
    index: Tensor
    value: Tensor
    places: Tensor
    errors: Tensor
    whole: frozenset[int] = frozenset()

    def change(self, now: Active) -> Active:
        """Position, index and change of activation of every held latent, where `now` are the active ones."""
        wanted = dict(zip(zip(self.position.tolist(), self.index.tolist()), self.value.tolist()))
        for p, i, a in zip(*(column.tolist() for column in now)):
            if (p, i) in wanted:
                wanted[p, i] -= a
            elif p in self.whole:
                wanted[p, i] = -a
        keys = torch.tensor(list(wanted), dtype=torch.int64).reshape(-1, 2)
        return keys[:, 0], keys[:, 1], torch.tensor(list(wanted.values()), dtype=self.value.dtype)


class _Rising:
    """One pass on its way up: what held latents still owe to later layers, and what live ones wrote there."""

    def __init__(self, replacement: Dictionaries, held: Mapping[int, Held]) -> None:
        self.replacement, self.held = replacement, held
        self.owed: dict[int, Tensor] = {}
        self.wrote: dict[int, Tensor] = {}
        self.last_error = max((l for l, h in held.items() if len(h.places)), default=-1)

    def __call__(self, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """What is written at `layer` [T, d] with its nodes held, where its MLP reads x and writes y."""
        held = self.held.get(layer)
        if self.replacement.numbers(layer) and (layer <= self.last_error or held is not None):
            now = self.replacement.encoded(layer, x)
            if layer <= self.last_error:
                _add(self.wrote, self.replacement.spread(layer, *now))
            if held is not None:
                _add(self.owed, self.replacement.spread(layer, *held.change(now)))
        if held is not None and len(held.places):
            left = y - self._explained(layer, x)
            y = y.index_add(0, held.places, held.errors - left[held.places])
        return y + self.owed.pop(layer, 0)

    def _explained(self, layer: int, x: Tensor) -> Tensor:
        r = self.replacement
        found = r.bias(layer) + (0 if (W := r.skip(layer)) is None else x @ W)
        return found * r.frozen.ordinary[:, None] + self.wrote.pop(layer, 0)


def _add(to: dict[int, Tensor], rows: Mapping[int, Tensor]) -> None:
    for layer, found in rows.items():
        to[layer] = to[layer] + found if layer in to else found


@torch.no_grad()
def hold(replacement: Dictionaries, held: Mapping[int, Held], mode: str) -> Tensor:
    """The final norm's output [T, d] with nodes held, by layer. ValueError for an unknown mode (effects.MODES), and a window."""
    frozen = replacement.frozen
    if mode not in MODES:
        raise ValueError(f"a mode is one of {', '.join(MODES)}, not {mode!r}")
    if frozen.first:
        raise ValueError("interventions need the whole prompt: hold nodes of a graph without a window")
    rising = _Rising(replacement, held)
    return _free(frozen, rising) if mode == "free" else _frozen(frozen, rising, live_norms=mode == "patterns frozen")


def _free(frozen: FrozenPass, rising: _Rising) -> Tensor:
    def edit(layer: int) -> Edit:
        def function(x: Tensor, y: Tensor) -> Tensor:
            return rising(layer, x[0].to(frozen.residuals), y[0].to(frozen.residuals))[None].to(y)

        return Edit(Site(layer, "mlp_in"), Site(layer, "mlp_out"), function, label="held", special=True)

    with frozen.model.edit(*map(edit, range(frozen.n_layers))):
        return frozen.model.hidden(frozen.tokens[None])[0].to(frozen.residuals)


def _frozen(frozen: FrozenPass, rising: _Rising, *, live_norms: bool) -> Tensor:
    x = frozen.residuals[:1]
    for l, block in enumerate(frozen.blocks):
        mid = x + block.attended(x, live_norms=live_norms)
        before = x if block.parallel else mid
        reads = before if block.norm is None else block.norm(before, live=live_norms)
        x = mid + rising(l, reads[0], block.mlp_out(before, live_norms=live_norms)[0])
    return frozen.final(x, live=live_norms)[0]


def difference(replacement: Dictionaries, held: Mapping[int, Held]) -> dict[int, Tensor]:
    """{layer: [T, d]}: what holding nodes adds to what MLPs write in the pass as it was, before anything answers."""
    r, found = replacement, dict[int, Tensor]()
    for layer, h in held.items():
        here = r.latents.of_layer(layer)
        _add(found, r.spread(layer, *h.change((r.latents.position[here], r.latents.index[here], r.latents.activation[here]))))
        if len(h.places):
            change = h.errors - r.error(layer)[h.places]
            _add(found, {layer: torch.zeros_like(r.frozen.residuals[0]).index_add_(0, h.places, change)})
    return found


@torch.no_grad()
def foreseen(replacement: Dictionaries, held: Mapping[int, Held], answering: Tensor | None = None) -> Tensor:
    """The change of the final norm's output [T, d] in the frozen linear model; latents `answering` (ids [k]) answer, no others."""
    r, frozen, owed = replacement, replacement.frozen, difference(replacement, held)
    x = torch.zeros_like(frozen.residuals[:1])
    for l, block in enumerate(frozen.blocks):
        mid = x + _attended(block, x)
        reads = _pushed(block.norm, x if block.parallel else mid)[0]
        if answering is not None:
            ids = _answering(r, answering, l, held.get(l))
            change = (r.covectors(ids) * reads[r.latents.position[ids]]).sum(1)
            _add(owed, r.spread(l, r.latents.position[ids], r.latents.index[ids], change))
        skip = 0 if (W := r.skip(l)) is None else (reads @ W) * frozen.ordinary[:, None]
        x = mid + skip + owed.pop(l, 0)
    return frozen.final.push(x)[0]


def _answering(r: Dictionaries, ids: Tensor, layer: int, held: Held | None) -> Tensor:
    """Those of latents `ids` that are of `layer` and not held."""
    ids = ids[r.latents.layer[ids] == layer]
    taken = set() if held is None else set(zip(held.position.tolist(), held.index.tolist()))
    keys = zip(r.latents.position[ids].tolist(), r.latents.index[ids].tolist())
    return ids[torch.tensor([k not in taken for k in keys], dtype=torch.bool)]


def _attended(block: Block, x: Tensor) -> Tensor:
    return _pushed(block.after, block.attention.push(_pushed(block.before, x)))


def _pushed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm.push(x)
