"""An attribution graph: nodes, sparse edges, and what proves that nothing was lost.

graph.safetensors   node columns and edges (CSR by target)
graph.json          model, prompt, tokens, dictionaries, options, scores, closure, verification
graph.html          a page of the pruned graph, where one was asked for
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.circuits.nodes import Kind
from diascope.storage.files import commit_folder, read_json, reading, write_json
from diascope.storage.seals import check_seal, seal

COLUMNS = (
    "kind", "layer", "position", "index", "activation", "value", "total", "rest", "residual", "weight", "influence",
    "predicted", "measured",
)  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """Nodes 0..N-1 in causal order and edges into those that were expanded.

    value: what incoming edges must sum to (latents: pre-activation less bias; targets: the logit, mean taken off).
    total: sum of |incoming edges|; rest: the sum of those too small to keep; residual: value less the sum of all edges.
    NaN where a node was not expanded. weight: how much influence starts at a node (targets). influence: see `influences`.
    predicted, measured: what a free ablation does to the first target (verify.py), NaN where nobody looked.
    """

    kind: Tensor
    layer: Tensor
    position: Tensor
    index: Tensor
    activation: Tensor
    value: Tensor
    total: Tensor
    rest: Tensor
    residual: Tensor
    weight: Tensor
    influence: Tensor
    predicted: Tensor
    measured: Tensor
    row: Tensor  # [R] expanded nodes, ascending
    start: Tensor  # [R + 1]
    source: Tensor  # [E]
    edge: Tensor  # [E]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def target(self) -> Tensor:
        """The target of every edge [E]."""
        return self.row.repeat_interleave(self.start[1:] - self.start[:-1])

    @property
    def tokens(self) -> list[str]:
        """The prompt's tokens as text, by position."""
        return self.about["tokens"]

    def targets(self) -> Tensor:
        """Nodes that the graph explains."""
        return (self.kind == Kind.TARGET).nonzero().squeeze(1)

    def incoming(self, node: int) -> tuple[Tensor, Tensor]:
        """Sources and edges into a node, the strongest first. ValueError where it was not expanded."""
        at = (self.row == node).nonzero().squeeze(1)
        if not len(at):
            raise ValueError(f"node {node} was not expanded: it is a source here")
        part = slice(int(self.start[at[0]]), int(self.start[at[0] + 1]))
        order = self.edge[part].abs().argsort(descending=True)
        return self.source[part][order], self.edge[part][order]

    def closure(self) -> float:
        """Largest |residual| of an expanded node over the sum of |edges| into it."""
        return float((self.residual[self.row].abs() / self.total[self.row].clamp_min(1e-30)).max())

    def name(self, node: int) -> str:
        """A node in words."""
        kind, layer, p, i = (int(c[node]) for c in (self.kind, self.layer, self.position, self.index))
        at = f" at {p} {self.tokens[p]!r}" if 0 <= p < len(self.tokens) else ""
        return {
            Kind.TOKEN: f"token {self.tokens[p]!r} at {p}" if kind == Kind.TOKEN else "",
            Kind.LATENT: f"L{layer} latent {i}{at}",
            Kind.ERROR: f"L{layer} error{at}",
            Kind.EXCLUDED: f"L{layer} MLP{at}",
            Kind.BIAS: f"L{layer} biases",
            Kind.EARLIER: f"L{layer} earlier tokens",
            Kind.TARGET: f"target {self.target_names[node]!r}" if kind == Kind.TARGET else "",
        }[Kind(kind)]

    def label(self, node: int) -> str:
        """What somebody said of a latent node (`about["labels"]`, by "layer/latent"); else ""."""
        if int(self.kind[node]) != Kind.LATENT:
            return ""
        return self.about.get("labels", {}).get(f"{int(self.layer[node])}/{int(self.index[node])}", "")

    def labelled(self, labels: Mapping[tuple[int, int], str]) -> Graph:
        """The graph with `labels` by (layer, latent) in its header."""
        said = self.about.get("labels", {}) | {f"{layer}/{latent}": text for (layer, latent), text in labels.items()}
        return replace(self, about=self.about | {"labels": said})

    @property
    def target_names(self) -> dict[int, str]:
        """What each target is called, by node."""
        return dict(zip(self.targets().tolist(), self.about["targets"], strict=True))

    def kept(self, nodes: Tensor, edges: Tensor) -> Graph:
        """Only some nodes [N] (bool) and, between these, some edges [E] (bool); numbered anew, order kept."""
        number = torch.cumsum(nodes.long(), 0) - 1
        target = self.target
        edges = edges & nodes[self.source] & nodes[target]
        stays = nodes[self.row]
        rows = self.row[stays]
        counts = torch.zeros(len(self), dtype=torch.int64).index_add_(0, target[edges], torch.ones_like(target[edges]))[rows]
        start = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        dropped = torch.zeros(len(self), dtype=self.edge.dtype).index_add_(0, target[~edges], self.edge[~edges])
        columns = {name: getattr(self, name)[nodes] for name in COLUMNS}
        columns["rest"] = (self.rest + dropped)[nodes]
        return replace(self, **columns, row=number[rows], start=start, source=number[self.source[edges]], edge=self.edge[edges])

    def save(self, folder: str | Path, *, html: str = "") -> Path:
        """Write the folder, sealed, with a page beside if there is one. Raises FileExistsError where something stands there."""
        tensors = {name: getattr(self, name).contiguous() for name in (*COLUMNS, "row", "start", "source", "edge")}
        tensors |= {"source": tensors["source"].int(), "row": tensors["row"].int()}
        with commit_folder(Path(folder), overwrite=False) as work:
            save_file(tensors, work / "graph.safetensors")
            write_json(work / "graph.json", self.about)
            if html:
                (work / "graph.html").write_text(html, encoding="utf-8")
            seal(work)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Graph:
        """The graph in `folder`; ValueError names a file that is damaged."""
        folder, way_out = Path(folder), "trace again"
        with reading(folder, way_out):
            check_seal(folder, way_out=way_out)
            tensors = load_file(folder / "graph.safetensors")
            about = read_json(folder / "graph.json")
        tensors |= {"source": tensors["source"].long(), "row": tensors["row"].long()}
        return cls(**tensors, about=about)


def between(graph: Graph, sources: Sequence[int], targets: Sequence[int]) -> Tensor:
    """Edges [len(targets), len(sources)] between some nodes; 0 where there is none."""
    place = torch.full((len(graph),), -1)
    place[torch.tensor(sources)] = torch.arange(len(sources))
    row = torch.full((len(graph),), -1)
    row[torch.tensor(targets)] = torch.arange(len(targets))
    target = graph.target
    chosen = (row[target] >= 0) & (place[graph.source] >= 0)
    out = graph.edge.new_zeros(len(targets), len(sources))
    out[row[target[chosen]], place[graph.source[chosen]]] = graph.edge[chosen]
    return out
