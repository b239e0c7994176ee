"""Supernodes: latents that do the same in a graph, grouped automatically, and tried by taking them away together.

Two latents are alike as far as their inputs and their outputs are: the mean of the cosines of their rows of shares and of
their columns (each signed). Groups are joined by average linkage while they are more alike than `alike`.

A supernode is tested against controls: for each member another active latent of the same layer and position, one of the
`near` closest in activation, drawn at random among all that are not in the supernode, important or not; the whole set is
ablated as the supernode is. The trial of the heaviest supernode that has controls goes into a graph's header (verify.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.circuits.effects import latent_ids, measured, predicted
from diascope.circuits.graph import Graph
from diascope.circuits.nodes import Kind
from diascope.circuits.subject import Subject

FEWEST_CONTROLS = 20  # of fewer there is no 95th percentile


def supernodes(graph: Graph, *, alike: float = 0.5) -> list[list[int]]:
    """Groups of two latents or more in a pruned graph, by node, the group that carries most influence first.

    ValueError for `alike` outside -1 to 1, and for a graph that is not pruned (a table of its nodes would be too large).
    """
    if not graph.about.get("pruned"):
        raise ValueError("supernodes are sought in a pruned graph: prune it first")
    if not -1 <= alike <= 1:
        raise ValueError(f"alike is a cosine from -1 to 1, got {alike}")
    nodes = (graph.kind == Kind.LATENT).nonzero().squeeze(1)
    if len(nodes) < 2:
        return []
    from scipy.cluster.hierarchy import fcluster, linkage

    likeness = (_cosines(graph, nodes, incoming=True) + _cosines(graph, nodes, incoming=False)) / 2
    distance = (1 - likeness).clamp_min(0)
    upper = distance[tuple(torch.triu_indices(len(nodes), len(nodes), 1))].numpy()
    label = fcluster(linkage(upper, "average"), 1 - alike, criterion="distance")
    groups = [nodes[torch.from_numpy(label == g)].tolist() for g in np.unique(label)]
    weigh = {id(g): float(graph.influence[g].sum()) for g in groups}
    return sorted((g for g in groups if len(g) > 1), key=lambda g: -weigh[id(g)])


def _cosines(graph: Graph, nodes: Tensor, *, incoming: bool) -> Tensor:
    """[n, n]: cosines of the shares that enter nodes [n], or of those that leave them."""
    share = (graph.edge / graph.total[graph.target].clamp_min(1e-30)).double()
    own, other = (graph.target, graph.source) if incoming else (graph.source, graph.target)
    row = torch.full((len(graph),), -1)
    row[nodes] = torch.arange(len(nodes))
    of = row[own] >= 0
    table = torch.zeros(len(nodes), len(graph), dtype=torch.float64).index_put_(
        (row[own[of]], other[of]), share[of], accumulate=True
    )
    table = table / table.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return table @ table.t()


@dataclass(frozen=True)
class Trial:
    """What taking a supernode away does to the first target, beside matched controls."""

    nodes: list[int]
    effect: float
    controls: list[float]  # effects of matched sets, absolute
    beats: float  # share of controls whose |effect| is smaller
    passed_over: int = 0  # heavier supernodes that have no controls

    @property
    def control_95(self) -> float:
        """The 95th percentile of the controls' |effects|."""
        return float(np.quantile(self.controls, 0.95))

    @property
    def exceeds(self) -> bool:
        """Whether |effect| is above the 95th percentile of the controls'."""
        return abs(self.effect) > self.control_95


class Unmatched(ValueError):
    """A member of a supernode has no latent left that could stand beside it."""


def tried(graph: Graph, subject: Subject, nodes: list[int], *, draws: int = 100, near: int = 8, seed: int = 0) -> Trial:
    """Ablate the latents `nodes` of `graph` together (the model free), and as many matched controls as `draws`.

    Unmatched where a member has no match left.
    """
    ids = latent_ids(graph, subject.replacement)[nodes]
    taken = set(ids.tolist())
    groups = [ids, *(_control(subject, ids, taken, near, seed, i) for i in range(draws))]
    found = measured(subject.frozen, subject.replacement, subject.covectors[:1], groups, [0.0] * len(groups), "free")[:, 0]
    effect, controls = float(found[0]), found[1:].abs().tolist()
    return Trial(nodes, effect, controls, float(np.mean([c < abs(effect) for c in controls])))


def tried_heaviest(small: Graph, subject: Subject, *, draws: int = 100, seed: int = 0) -> Trial | None:
    """The trial of the heaviest supernode of a pruned graph whose members all have a match; None where there is none.

    A cell of layer and position may hold no other active latent, so that the members of a supernode there have no match.
    """
    for i, group in enumerate(supernodes(small)):
        try:
            return replace(tried(small, subject, group, draws=draws, seed=seed), passed_over=i)
        except Unmatched:
            continue
    return None


def in_words(graph: Graph, small: Graph, trial: Trial | None) -> dict[str, Any]:
    """A trial as a graph's header keeps it: `latents` [layer, position, index], names, influence, the change of the first target
    as `predicted` by all paths of the whole graph and as measured (`effect`), `control_95`, `controls` (how many), `beats`, `exceeds`, `passed_over`.

    `says` is a sentence, alone where there was no supernode to try.
    """
    if trial is None:
        return {"says": "no supernode was tried: none has matched controls for all its members"}
    columns = (small.layer, small.position, small.index)
    latents = [[int(c[n]) for c in columns] for n in trial.nodes]
    found = {
        "latents": latents, "names": [small.name(n) for n in trial.nodes], "influence": float(small.influence[trial.nodes].sum()),
        "predicted": _predicted(graph, latents), "effect": trial.effect, "control_95": trial.control_95,
        "controls": len(trial.controls), "beats": trial.beats, "exceeds": trial.exceeds, "passed_over": trial.passed_over,
    }  # fmt: skip
    than = "more than" if trial.exceeds else "NO MORE than"
    which = "heaviest supernode" + (" that has controls" if trial.passed_over else "")
    return found | {
        "says": f"ablating its {which} ({len(latents)} latents) moves {graph.about['targets'][0]!r} by {trial.effect:+.2f}, "
        f"{than} 95 % of {len(trial.controls)} matched controls do ({trial.control_95:.2f})"
    }


def _predicted(graph: Graph, latents: list[list[int]]) -> float:
    wanted = {tuple(k) for k in latents}
    key = zip(graph.layer.tolist(), graph.position.tolist(), graph.index.tolist())
    nodes = [n for n, k in enumerate(key) if k in wanted and int(graph.kind[n]) == Kind.LATENT]
    return float(predicted(graph)[1][nodes].sum())


def _control(subject: Subject, ids: Tensor, taken: set[int], near: int, seed: int, draw: int) -> Tensor:
    latents, pick, chosen = subject.replacement.latents, rng.generator(seed, "control", draw), list[int]()
    for i in ids.tolist():
        same = (latents.layer == latents.layer[i]) & (latents.position == latents.position[i])
        pool = [j for j in same.nonzero().squeeze(1).tolist() if j not in taken and j not in chosen]
        if not pool:
            layer, position = int(latents.layer[i]), int(latents.position[i])
            raise Unmatched(f"no latent of layer {layer} at position {position} is left to stand beside one of the supernode")
        gap = (latents.activation[pool] - latents.activation[i]).abs()
        chosen.append(pool[int(pick.choice(gap.argsort()[:near].numpy()))])
    return torch.tensor(chosen, dtype=torch.int64)
