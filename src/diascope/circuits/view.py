"""A graph as plain data for a page or another program: pruned, with names, supernodes and what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diascope.circuits.graph import Graph
from diascope.circuits.influence import prune
from diascope.circuits.nodes import Kind
from diascope.circuits.supernodes import supernodes

NAMES = {k: k.name.lower() for k in Kind}


def view(
    graph: Graph,
    *,
    node_share: float = 0.8,
    edge_share: float = 0.98,
    labels: Mapping[tuple[int, int], str] | None = None,
    alike: float = 0.5,
) -> dict[str, Any]:
    """{about, tokens, nodes, edges, supernodes} of the pruned graph.

    nodes: id, kind, layer, position (null where it has none), index, name, label (of `labels` by layer and latent, else `Graph.labelled`, else ""),
    activation, value, influence, weight, predicted, measured (null where there is none).
    edges: [source id, target id, weight, share of its target]. supernodes: lists of ids.
    """
    graph = graph.labelled(labels) if labels else graph
    small = prune(graph, node_share=node_share, edge_share=edge_share)
    share = (small.edge.abs() / small.total[small.target].clamp_min(1e-30)).tolist()
    columns = {
        name: getattr(small, name).tolist() for name in ("activation", "value", "influence", "weight", "predicted", "measured")
    }
    nodes = []
    for i in range(len(small)):
        kind, layer, position, index = (int(c[i]) for c in (small.kind, small.layer, small.position, small.index))
        node = {
            "id": i,
            "kind": NAMES[Kind(kind)],
            "layer": layer,
            "position": position if position >= 0 else None,
            "index": index,
        }
        node |= {"name": small.name(i), "label": small.label(i)}
        nodes.append(node | {name: None if math.isnan(v := column[i]) else v for name, column in columns.items()})
    edges = [list(e) for e in zip(small.source.tolist(), small.target.tolist(), small.edge.tolist(), share)]
    about = graph.about | {
        "node_share": node_share,
        "edge_share": edge_share,
        "all_nodes": len(graph),
        "all_edges": len(graph.edge),
    }
    return {
        "about": about,
        "tokens": graph.tokens,
        "nodes": nodes,
        "edges": edges,
        "supernodes": supernodes(small, alike=alike),
    }
