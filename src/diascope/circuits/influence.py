"""How much of a graph's targets passes through each node, and what follows: pruning and the two scores.

With N = |A| and every row divided by its sum, influence is I = w + N^T I (w: the targets' weights), that is
w (1 + N + N^2 + ...): N is nilpotent, because edges go up, so one pass from the targets down is exact.
Ameisen et al. 2025, appendix "Graph pruning" and "Graph scores"; circuit-tracer computes the same series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diascope.circuits.graph import Graph
from diascope.circuits.nodes import Kind


def shares(graph: Graph) -> Tensor:
    """|edge| as a share of all that enters its target [E]."""
    return graph.edge.abs() / graph.total[graph.target].clamp_min(1e-30)


def influences(graph: Graph, share: Tensor | None = None) -> Tensor:
    """Influence [N] of every node; `share` [E] replaces `shares(graph)`."""
    share, target = shares(graph) if share is None else share, graph.target
    found = graph.weight.double().clone()
    for layer in sorted(set(graph.layer[graph.row].tolist()), reverse=True):
        for kind in (Kind.TARGET, Kind.LATENT):  # a target may be of the layer whose latents it depends on, never the reverse
            of = (graph.layer[target] == layer) & (graph.kind[target] == kind)
            found.index_add_(0, graph.source[of], share[of].double() * found[target[of]])
    return found.to(graph.weight.dtype)


def prune(graph: Graph, *, node_share: float = 0.8, edge_share: float = 0.98) -> Graph:
    """The nodes that carry `node_share` of influence (tokens, targets always stay), then the edges that carry `edge_share`.

    Between the two, rows are normalised again over what is left, as circuit-tracer does. Nodes that no longer lead to a
    target, and latents without any edge into them that had some, go too. ValueError for a share outside 0 to 1.
    """
    for name, value in (("node_share", node_share), ("edge_share", edge_share)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} is a share above 0 and at most 1, got {value}")
    always = (graph.kind == Kind.TARGET) | (graph.kind == Kind.TOKEN)
    influence = influences(graph)
    keep = _largest(torch.where(graph.kind == Kind.TARGET, 0.0, influence), node_share) | always
    part = graph.kept(keep, torch.ones_like(graph.edge, dtype=torch.bool))
    left = torch.zeros(len(part)).index_add_(0, part.target, part.edge.abs().float()).clamp_min(1e-30)
    share = part.edge.abs() / left[part.target]
    score = share * influences(part, share)[part.target]
    part = part.kept(torch.ones(len(part), dtype=torch.bool), _largest(score, edge_share))
    part = replace(part, influence=influence[keep], about=graph.about | {"pruned": [node_share, edge_share]})
    while True:
        leads = torch.zeros(len(part), dtype=torch.bool)
        leads[part.source] = True
        fed = torch.ones(len(part), dtype=torch.bool)
        fed[part.row] = (part.start[1:] > part.start[:-1]) | (part.kind[part.row] == Kind.TARGET)
        stay = (leads & fed) | (part.kind == Kind.TARGET) | (part.kind == Kind.TOKEN)
        if bool(stay.all()):
            return part
        part = part.kept(stay, torch.ones_like(part.edge, dtype=torch.bool))


def _largest(scores: Tensor, share: float) -> Tensor:
    """The fewest entries whose sum reaches `share` of all [n] (bool)."""
    order = scores.argsort(descending=True, stable=True)
    total = scores[order].double().cumsum(0)
    if not len(order) or float(total[-1]) <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    count = int((total < share * total[-1] * (1 - 1e-12)).sum()) + 1
    keep = torch.zeros_like(scores, dtype=torch.bool)
    keep[order[:count]] = True
    return keep


@dataclass(frozen=True)
class Scores:
    """replacement: share of influence that ends at tokens rather than errors. completeness: how much of what enters each node,
    weighed by its influence, is no error. Theirs count nodes without inputs as explained; `restricted` only those that have some."""

    replacement: float
    completeness: float
    completeness_restricted: float
    open: float  # influence that ends at latents whose inputs were not computed, and at edges too small to keep


def scores(graph: Graph) -> Scores:
    """The scores of a graph, before or after pruning.

    Biases and the first token's MLPs (BOS) count as tokens; a later excluded position (a special token) counts as error, since
    nothing stands for its MLPs; what enters from before a window counts as neither.
    """
    influence = influences(graph).double()
    kind, expanded = graph.kind, torch.zeros(len(graph), dtype=torch.bool)
    expanded[graph.row] = True
    error = (kind == Kind.ERROR) | ((kind == Kind.EXCLUDED) & (graph.position > 0))
    tokens = influence[(kind == Kind.TOKEN) | (kind == Kind.BIAS) | ((kind == Kind.EXCLUDED) & ~error)].sum()
    errors = influence[error].sum()
    part = shares(graph).double()
    wrong = torch.zeros(len(graph), dtype=torch.float64).index_add_(0, graph.target, part * error[graph.source])
    fed = torch.zeros(len(graph), dtype=torch.float64).index_add_(0, graph.target, part)
    each = (1 - wrong) * influence
    closed_leaves = (kind == Kind.LATENT) & ~expanded
    left = influence[closed_leaves].sum() + ((1 - fed).clamp_min(0) * influence)[expanded].sum()
    everything = influence.sum().clamp_min(1e-30)
    return Scores(
        float(tokens / (tokens + errors).clamp_min(1e-30)),
        float(each.sum() / everything),
        float(each[expanded].sum() / influence[expanded].sum().clamp_min(1e-30)),
        float(left),
    )
