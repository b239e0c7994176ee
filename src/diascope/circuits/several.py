"""Several graphs together: what they share (many prompts), and what tells two apart (a model and its fine-tune, two prompts).

Nodes of different prompts are matched by keys without a position, (kind, layer, index), and their influence and edges are
summed over positions first; graphs of the same tokens may be matched by position too. Shares, not raw weights, are
compared: of an edge, its share of what enters its target times the target's influence, so that all edges of a graph that
end at sources sum to what reaches them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from diascope.circuits.graph import Graph
from diascope.circuits.influence import influences, shares
from diascope.circuits.nodes import Kind

Key = tuple[str, int, int, int]  # kind, layer, index, position (-1: any)


@dataclass(frozen=True)
class Common:
    """A node or an edge over many graphs."""

    key: tuple[Key, ...]  # one key of a node, two (source, target) of an edge
    graphs: int  # in how many it occurs
    mean: float  # of its influence or flow, over all graphs


@dataclass(frozen=True)
class Change:
    """A node or an edge in two graphs."""

    key: tuple[Key, ...]
    before: float
    after: float

    @property
    def change(self) -> float:
        """after - before."""
        return self.after - self.before


def keyed(graph: Graph, *, positions: bool = False) -> tuple[dict[Key, float], dict[tuple[Key, Key], float]]:
    """Influence of nodes and flow of edges by key. Targets of logits share the key ("target", layer, -1, -1) of any token."""
    influence = influences(graph)
    keys = [_key(graph, n, positions) for n in range(len(graph))]
    nodes: dict[Key, float] = defaultdict(float)
    for key, value in zip(keys, influence.tolist()):
        nodes[key] += value
    flow = (shares(graph) * influence[graph.target]).tolist()
    edges: dict[tuple[Key, Key], float] = defaultdict(float)
    for s, t, value in zip(graph.source.tolist(), graph.target.tolist(), flow):
        edges[keys[s], keys[t]] += value
    return dict(nodes), dict(edges)


def _key(g: Graph, n: int, positions: bool) -> Key:
    kind = Kind(int(g.kind[n]))
    index = -1 if kind == Kind.TARGET else int(g.index[n])
    return kind.name.lower(), int(g.layer[n]), index, int(g.position[n]) if positions else -1


def in_common(graphs: Sequence[Graph], *, least: int = 2, most: int = 200) -> tuple[list[Common], list[Common]]:
    """Nodes and edges that occur in at least `least` of the graphs, the largest means first. ValueError for fewer than two."""
    if len(graphs) < 2:
        raise ValueError(f"what graphs have in common takes at least two, got {len(graphs)}")
    _same_dictionaries(graphs)
    tables = [keyed(g) for g in graphs]
    return _common([{(k,): v for k, v in t[0].items()} for t in tables], least, most), _common(
        [t[1] for t in tables], least, most
    )


def _common(tables: list[dict[tuple[Key, ...], float]], least: int, most: int) -> list[Common]:
    count: dict[tuple[Key, ...], int] = defaultdict(int)
    total: dict[tuple[Key, ...], float] = defaultdict(float)
    for table in tables:
        for key, value in table.items():
            count[key] += value > 0
            total[key] += value
    found = [Common(k, count[k], total[k] / len(tables)) for k in count if count[k] >= least]
    return sorted(found, key=lambda c: -c.mean)[:most]


def difference(before: Graph, after: Graph, *, most: int = 200) -> tuple[list[Change], list[Change]]:
    """Nodes and edges whose influence or flow changes most from one graph to another; by position where tokens are the same.

    ValueError where the graphs are of other dictionaries, whose latents cannot be compared.
    """
    _same_dictionaries([before, after])
    same = before.about["token_ids"] == after.about["token_ids"]
    a, b = keyed(before, positions=same), keyed(after, positions=same)
    nodes = _changes({(k,): v for k, v in a[0].items()}, {(k,): v for k, v in b[0].items()}, most)
    return nodes, _changes(dict(a[1]), dict(b[1]), most)


def _same_dictionaries(graphs: Sequence[Graph]) -> None:
    if len({g.about["dictionaries"] for g in graphs}) > 1:
        raise ValueError("the graphs are of other dictionaries: their latents cannot be compared")


def _changes(a: dict[tuple[Key, ...], float], b: dict[tuple[Key, ...], float], most: int) -> list[Change]:
    found = [Change(k, a.get(k, 0.0), b.get(k, 0.0)) for k in a.keys() | b.keys()]
    return sorted(found, key=lambda c: (-abs(c.change), c.key))[:most]
