"""Work on graphs for the explorer: one as data, and what multiplying some of its latents does in the model.

1. The pass behind the graph is made again with the dictionaries that are open, if they are the graph's (by hash).
2. What multiplying latents by a factor adds to what the MLPs write goes into the model (effects.measured), for all tokens.
3. Beside it what the graph predicts: predictions for single latents add up, since the graph is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diascope.circuits import Graph, Kind
from diascope.circuits.effects import latent_ids, measured, predicted
from diascope.circuits.labels import matched
from diascope.circuits.replacement import dictionaries_hash
from diascope.circuits.trace import NEURONS
from diascope.circuits.verify import Subject, subject_of
from diascope.circuits.view import view
from diascope.dictionaries import Dictionary
from diascope.latents.store import Index, Source
from diascope.models.model import Model
from diascope.storage.files import read_json

TOP = 5  # tokens that are told before and after


@dataclass(frozen=True)
class Ready:
    """A graph with its pass, and what it predicts for every target: (direct, total) [N] each."""

    graph: Graph
    subject: Subject
    guesses: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls,
        graph: Graph,
        model: Model,
        dictionaries: Mapping[str, Dictionary],
        stage: Callable[[str], None] = lambda _: None,
    ) -> Ready:
        """ValueError where the graph was made of another model or other dictionaries."""
        stage("running the model as the graph has it")
        subject = subject_of(graph, model, made_with(graph, dictionaries))
        stage("adding up what the graph predicts")
        return cls(graph, subject, [predicted(graph, target=t) for t in range(len(graph.targets()))])


class Work:
    """What the explorer asks of graphs. The last one intervened on is kept: a reader tries several things on it."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, int], Ready] | None = None

    def view(
        self, folder: Path, labels: Mapping[tuple[int, int], str], *, node_share: float, edge_share: float
    ) -> dict[str, Any]:
        """The graph in `folder` as data, its latents called as `labels` have them. ValueError where it is damaged."""
        found = view(Graph.load(folder), node_share=node_share, edge_share=edge_share)
        for node in found["nodes"]:  # only those shown: an index describes hundreds of thousands
            if node["kind"] == "latent":
                node["label"] = labels.get((node["layer"], node["index"])) or node["label"]
        return found

    def sources(self, opened: Any, folder: Path, index: Index) -> dict[int, Source] | None:
        """By layer, the index's source of the graph's latents, found by config and thresholds (circuits.labels.matched).

        None where the open dictionaries are not those that the graph was made with, or the index does not say what its are.
        """
        about = read_json(folder / "graph.json")
        if about.get("model") != index.meta["model"] or not all(s.meta.get("config") for s in index.sources.values()):
            return None
        try:
            dictionaries = _made_with(about, opened[1])
            if dictionaries == NEURONS or dictionaries_hash(dictionaries) != about["dictionaries"]:  # type: ignore[arg-type]
                return None
        except ValueError:  # some of them are not here
            return None
        try:
            found = matched(dictionaries, index)  # type: ignore[arg-type]
        except ValueError:  # the index has none of them
            return {}
        return {site.layer: source for d, source in found for site in d.config.reads}  # type: ignore[misc]

    def intervene(
        self,
        opened: Any,
        folder: Path,
        latents: Sequence[tuple[int, int, int]],
        *,
        factor: float,
        mode: str,
        stage: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """`intervened` on the graph in `folder`, with the model and dictionaries that are open; tells each `stage`."""
        key = (str(folder), (folder / "graph.json").stat().st_mtime_ns)
        if self._last is None or self._last[0] != key or self._last[1].subject.frozen.model is not opened[0]:
            stage("reading the graph")
            self._last = (key, Ready.of(Graph.load(folder), opened[0], opened[1], stage))
        stage("running the model with the change")
        return intervened(self._last[1], latents, factor=factor, mode=mode)


@torch.no_grad()
def intervened(ready: Ready, latents: Sequence[tuple[int, int, int]], *, factor: float, mode: str) -> dict[str, Any]:
    """What the model says once `latents` (layer, position, index) of the graph are multiplied by `factor`.

    targets: name, probability before and after, change of the logit as measured, and as predicted by direct edges and by
    all paths. before, after: the likeliest tokens with their probabilities. ValueError for a latent that the graph lacks.
    """
    graph, subject = ready.graph, ready.subject
    nodes = torch.tensor([_node(graph, key) for key in latents])
    ids = latent_ids(graph, subject.replacement)[nodes]
    h, model = subject.frozen.last[-1], subject.frozen.model
    U = model.unembedding.to(h)
    change = measured(subject.frozen, subject.replacement, U, [ids], [factor], mode)[0]
    logits = h @ U.t()
    chances = [model.scaled_logits(x).float().softmax(-1) for x in (logits, logits + change)]
    against = graph.about.get("against")
    off = change.mean() if against is None else change[against]
    targets = []
    for t, node in enumerate(graph.targets().tolist()):
        token = int(graph.index[node])
        direct, total = (float(p[nodes].sum()) * (1 - factor) for p in ready.guesses[t])
        before, after = (float(c[token]) for c in chances)
        found = {"name": graph.target_names[node], "before": before, "after": after, "measured": float(change[token] - off)}
        targets.append(found | {"direct": direct, "total": total})
    before, after = (_top(model, c) for c in chances)
    return {"targets": targets, "before": before, "after": after, "factor": factor, "mode": mode, "latents": len(latents)}


def _top(model: Model, chance: Tensor) -> list[tuple[str, float]]:
    best = chance.topk(min(TOP, len(chance)))
    return [(model.tokenizer.decode([i]), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _node(graph: Graph, key: tuple[int, int, int]) -> int:
    layer, position, index = key
    where = (graph.kind == Kind.LATENT) & (graph.layer == layer) & (graph.position == position) & (graph.index == index)
    if not bool(where.any()):
        raise ValueError(f"this graph has no latent {index} of layer {layer} at position {position}")
    return int(where.nonzero()[0])


def made_with(graph: Graph, dictionaries: Mapping[str, Dictionary]) -> list[Dictionary] | str:
    """Those open dictionaries whose latents the graph names, in the order in which they were given when it was traced."""
    return _made_with(graph.about, dictionaries)


def _made_with(about: Mapping[str, Any], dictionaries: Mapping[str, Dictionary]) -> list[Dictionary] | str:
    if about["dictionaries"] == NEURONS:
        return NEURONS
    names = list(dict.fromkeys(n for n in about["latents_are"] if n))
    found = {d.config.title: (folder, d) for folder, d in dictionaries.items() if d.config.title in names}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"this graph was made with {len(names)} dictionaries, and {len(missing)} of them are not in this workspace "
            f"({missing[0]}): add them to it, or intervene from Python"
        )
    by_layer = [found[name][1] for name in names]
    by_folder = [d for _, d in sorted(found.values(), key=lambda pair: pair[0])]  # as a pattern in a shell gives them
    same = (some for some in (by_layer, by_folder) if dictionaries_hash(some) == about["dictionaries"])
    return next(same, by_layer)  # others are refused by `subject_of`
