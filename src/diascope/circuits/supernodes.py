"""Supernodes: latents that do the same in a graph, grouped automatically, and tried by taking them away together.

Two latents are alike as far as their inputs and their outputs are: the mean of the cosines of their rows of shares and of
their columns (each signed). Groups are joined by average linkage while they are more alike than `alike`.

A supernode is tested against controls: for each member another active latent of the same layer and position, one of the
`near` closest in activation, drawn at random among all that are not in the supernode, important or not; the whole set is
ablated as the supernode is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.circuits.effects import latent_ids, measured
from diascope.circuits.graph import Graph
from diascope.circuits.nodes import Kind
from diascope.circuits.verify import Subject


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

    @property
    def exceeds(self) -> bool:
        """Whether |effect| is above the 95th percentile of the controls'."""
        return abs(self.effect) > float(np.quantile(self.controls, 0.95))


def tried(graph: Graph, subject: Subject, nodes: list[int], *, draws: int = 100, near: int = 8, seed: int = 0) -> Trial:
    """Ablate the latents `nodes` of `graph` together (the model free), and as many matched controls as `draws`.

    ValueError where a member has no match left.
    """
    ids = latent_ids(graph, subject.replacement)[nodes]
    taken = set(ids.tolist())
    groups = [ids, *(_control(subject, ids, taken, near, seed, i) for i in range(draws))]
    found = measured(subject.frozen, subject.replacement, subject.covectors[:1], groups, [0.0] * len(groups), "free")[:, 0]
    effect, controls = float(found[0]), found[1:].abs().tolist()
    return Trial(nodes, effect, controls, float(np.mean([c < abs(effect) for c in controls])))


def _control(subject: Subject, ids: Tensor, taken: set[int], near: int, seed: int, draw: int) -> Tensor:
    latents, pick, chosen = subject.replacement.latents, rng.generator(seed, "control", draw), list[int]()
    for i in ids.tolist():
        same = (latents.layer == latents.layer[i]) & (latents.position == latents.position[i])
        pool = [j for j in same.nonzero().squeeze(1).tolist() if j not in taken and j not in chosen]
        if not pool:
            layer, position = int(latents.layer[i]), int(latents.position[i])
            raise ValueError(f"no latent of layer {layer} at position {position} is left to stand beside one of the supernode")
        gap = (latents.activation[pool] - latents.activation[i]).abs()
        chosen.append(pool[int(pick.choice(gap.argsort()[:near].numpy()))])
    return torch.tensor(chosen, dtype=torch.int64)
