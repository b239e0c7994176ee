"""Swap nodes of a graph from another prompt: they take the values that they have there, and the targets' change is read.

1. Freeze the other prompt's pass and encode it with the same dictionaries.
2. Every chosen latent is held at its activation there (0 where it is not active), every chosen error at the error there:
   at the same position, or at the one that `positions` names.
3. Measured: free, patterns frozen, norms frozen (held.py). Predicted by the graph: `direct`, by the edges of the held nodes
   alone, `total`, with all expanded latents answering. `whole` is the target's difference between the two prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from diascope.circuits.effects import MODES, latent_ids
from diascope.circuits.graph import Graph
from diascope.circuits.held import Held, foreseen, hold
from diascope.circuits.nodes import Kind
from diascope.circuits.replacement import Dictionaries
from diascope.circuits.subject import subject_of
from diascope.dictionaries import Dictionary
from diascope.models.frozen import FrozenPass, frozen_pass
from diascope.models.model import Model

TOP = 5  # tokens that are told before and after


@dataclass(frozen=True)
class Place:
    """Which nodes: a latent by its number, all latents, the error, or all of these, of one layer (None: of all) at one position (None: at all).

    A position may be negative, counted from the end.
    """

    layer: int | None
    position: int | None = None
    what: int | Literal["latents", "error", "all"] = "all"

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"L{self.layer}"
        what = {"all": "", "latents": "/*", "error": "/error"}.get(str(self.what), f"/{self.what}")
        return f"{layer}{what}" + ("" if self.position is None else f"@{self.position}") or "all"


def swap(
    graph: Graph,
    model: Model,
    dictionaries: Dictionary | Iterable[Dictionary],
    other: Any,
    nodes: Sequence[int | Place],
    *,
    positions: Mapping[int, int] | None = None,
) -> Graph:
    """`graph` with one more entry in `about["swaps"]`: what happens where `nodes` (numbers of its nodes, or places) take the
    values that they have in the prompt `other` (text, token ids or a conversation).

    `positions` {here: there}: where to look a position up in the other prompt; the same position where it is not named.
    ValueError for nodes that are neither latents nor errors, positions that the other prompt lacks, and what `subject_of` says.
    """
    if isinstance(dictionaries, str):
        raise ValueError(
            "a swap is of dictionaries' latents, and this graph has the MLPs' own neurons: trace with dictionaries"
        )
    if graph.about.get("pruned"):
        raise ValueError("swap in the whole graph, before it is pruned: its edges are what predicts")
    given = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    subject = subject_of(graph, model, given)
    here = subject.replacement
    assert isinstance(here, Dictionaries)  # neurons were refused
    there = Dictionaries(frozen_pass(model, other), given)
    places = [_place(graph, n) if isinstance(n, int) else n for n in nodes]
    held = values(here, there, places, _lookup(here.frozen, there.frozen, positions or {}))
    before, whole = here.frozen.last[-1], there.frozen.last[-1]
    after = {mode: hold(here, held, mode)[-1] for mode in MODES}
    changes = _foreseen(graph, here, held) | {"whole": whole - before} | {m: h - before for m, h in after.items()}
    effects = {name: (subject.covectors @ h).tolist() for name, h in changes.items()}
    ids = there.frozen.tokens.tolist()
    told = {
        "token_ids": ids, "tokens": [model.tokenizer.decode([t]) for t in ids],
        "nodes": [str(p) for p in places], "positions": sorted((positions or {}).items()),
        "latents": sum(len(h.index) for h in held.values()), "errors": sum(len(h.places) for h in held.values()),
        "targets": [{"name": name} | {k: v[t] for k, v in effects.items()} for t, name in enumerate(graph.about["targets"])],
        "before": _likeliest(model, before), "after": _likeliest(model, after["free"]), "there": _likeliest(model, whole),
    }  # fmt: skip
    return replace(graph, about=graph.about | {"swaps": [*graph.about.get("swaps", []), told]})


def _foreseen(graph: Graph, here: Dictionaries, held: Mapping[int, Held]) -> dict[str, Tensor]:
    """What the graph predicts of the final norm's output at the last position [d]: latents that it expanded answer."""
    ids = latent_ids(graph, here)[graph.row]
    return {"direct": foreseen(here, held)[-1], "total": foreseen(here, held, ids[ids >= 0])[-1]}


def _place(graph: Graph, node: int) -> Place:
    kind, layer, position, index = (int(c[node]) for c in (graph.kind, graph.layer, graph.position, graph.index))
    if kind == Kind.LATENT:
        return Place(layer, position, index)
    if kind in (Kind.ERROR, Kind.EXCLUDED):
        return Place(layer, position, "error")
    raise ValueError(f"only latents and errors can be swapped, and node {node} is the {graph.name(node)}")


def _lookup(here: FrozenPass, there: FrozenPass, positions: Mapping[int, int]) -> dict[int, int]:
    """{position here: position there} of all positions that both have. ValueError where a given one is in neither."""
    found = {p: p for p in range(min(here.length, there.length))}
    for p, q in positions.items():
        for given, length, which in ((p, here.length, "the prompt"), (q, there.length, "the other prompt")):
            if not -length <= given < length:
                raise ValueError(f"{which} has positions 0 to {length - 1}, not {given}")
        found[p % here.length] = q % there.length
    return found


def values(here: Dictionaries, there: Dictionaries, places: Sequence[Place], at: Mapping[int, int]) -> dict[int, Held]:
    """What nodes at `places` are held at, by layer: their values in the pass `there`, whose positions are looked up in `at`."""
    latents: dict[int, dict[tuple[int, int], float]] = {}
    errors: dict[int, dict[int, Tensor]] = {}
    whole: dict[int, set[int]] = {}
    if not places:
        raise ValueError("choose at least one node to swap")
    seen = [_active(r) for r in (here, there)]
    error = cache(there.error)
    for place in places:
        for layer, p in _cells(here.frozen, place):
            q = _there(here.frozen, there.frozen, p, at)
            if place.what in ("all", "error"):
                errors.setdefault(layer, {})[p] = error(layer)[q]
            if place.what in ("all", "latents"):
                whole.setdefault(layer, set()).add(p)
                wanted: Iterable[int] = seen[0].get((layer, p), {}).keys() | seen[1].get((layer, q), {}).keys()
            else:
                wanted = [] if place.what == "error" else [_checked(here, place, layer)]
            latents.setdefault(layer, {}).update({(p, i): seen[1].get((layer, q), {}).get(i, 0.0) for i in wanted})
    like = here.frozen.residuals
    layers = sorted({*latents, *errors})
    return {l: _held(latents.get(l, {}), errors.get(l, {}), whole.get(l, ()), like) for l in layers}


def _held(latents: Mapping[tuple[int, int], float], errors: Mapping[int, Tensor], whole: Iterable[int], like: Tensor) -> Held:
    keys = torch.tensor(sorted(latents), dtype=torch.int64).reshape(-1, 2)
    value = torch.tensor([latents[k] for k in sorted(latents)], dtype=like.dtype)
    places = torch.tensor(sorted(errors), dtype=torch.int64)
    vectors = torch.stack([errors[p] for p in sorted(errors)]) if errors else like.new_zeros(0, like.shape[-1])
    return Held(keys[:, 0], keys[:, 1], value, places, vectors, frozenset(whole))


def _cells(frozen: FrozenPass, place: Place) -> list[tuple[int, int]]:
    """(layer, position) that a place names. ValueError where there is none such."""
    T, L = frozen.length, frozen.n_layers
    if place.layer is not None and not 0 <= place.layer < L:
        raise ValueError(f"{place} is of no layer of {frozen.model.name}, which has layers 0 to {L - 1}")
    if place.position is not None and not -T <= place.position < T:
        raise ValueError(f"{place} is at no position of the prompt, which has positions 0 to {T - 1}")
    layers = range(L) if place.layer is None else [place.layer]
    at = range(T) if place.position is None else [place.position % T]
    return [(l, p) for l in layers for p in at]


def _there(here: FrozenPass, there: FrozenPass, p: int, at: Mapping[int, int]) -> int:
    if p not in at:
        raise ValueError(
            f"position {p} is not in the other prompt, which has positions 0 to {there.length - 1}: "
            f"say where it is looked up ({p}:{there.length - 1}), or choose other nodes"
        )
    if bool(here.ordinary[p]) != bool(there.ordinary[at[p]]):
        raise ValueError(f"position {p} and position {at[p]} of the other prompt: one is a special token, which has no latents")
    return at[p]


def _checked(here: Dictionaries, place: Place, layer: int) -> int:
    numbers = here.numbers(layer)
    if place.what not in numbers:
        has = f"has latents {numbers.start} to {numbers.stop - 1}" if numbers else "has no dictionary"
        raise ValueError(f"there is no latent {place}: layer {layer} {has}")
    return int(place.what)


def _active(r: Dictionaries) -> dict[tuple[int, int], dict[int, float]]:
    """Active latents of a pass: {(layer, position): {latent: activation}}."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    columns = (r.latents.layer, r.latents.position, r.latents.index, r.latents.activation)
    for layer, p, i, a in zip(*(c.tolist() for c in columns)):
        found.setdefault((layer, p), {})[i] = a
    return found


def _likeliest(model: Model, h: Tensor) -> list[tuple[str, float]]:
    """The likeliest next tokens and their probabilities, from the final norm's output [d]."""
    chance = model.logits_of(h[None].to(model.dtype))[0].float().softmax(-1)
    best = chance.topk(min(TOP, len(chance)))
    return [(model.tokenizer.decode([i]), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
