"""Names for a graph's latents: what an index says of them, and where nobody has described them, the tokens that they promote.

An index knows its dictionaries by their config. Two runs of one recipe have one config, so the thresholds must be the same too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from diascope.circuits.effects import latent_ids
from diascope.circuits.graph import Graph
from diascope.circuits.nodes import Kind
from diascope.circuits.replacement import Dictionaries, Replacement
from diascope.config import to_data
from diascope.dictionaries import Dictionary
from diascope.models.frozen import frozen_pass
from diascope.models.model import Model

WORDS = 16_384  # rows of the unembedding at a time


class Described(Protocol):
    """One dictionary in an index (`diascope.latents.store.Source`)."""

    meta: dict[str, Any]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int: ...

    def description(self, latent: int) -> str:
        """What is said of `latent`; "" where nothing is."""
        ...


class Descriptions(Protocol):
    """An index (`diascope.latents.store.Index`)."""

    meta: dict[str, Any]

    @property
    def sources(self) -> Mapping[str, Described]: ...


def described(graph: Graph, dictionaries: Dictionary | Iterable[Dictionary], index: Descriptions) -> dict[tuple[int, int], str]:
    """{(layer, latent): description} of those latents of the graph that `index` (`latents.store.Index`) describes.

    `graph.labelled(described(graph, dictionaries, Index("W/index")))`. ValueError where the index is of another model or has none of the
    dictionaries.
    """
    if index.meta["model"] != graph.about["model"]:
        raise ValueError(f"the index is of {index.meta['model']}, and the graph of {graph.about['model']}")
    by_layer = {site.layer: source for d, source in matched(dictionaries, index) for site in d.config.reads}
    found = {}
    for node in (graph.kind == Kind.LATENT).nonzero().squeeze(1).tolist():
        layer, latent = int(graph.layer[node]), int(graph.index[node])
        source = by_layer.get(layer)
        if source is not None and latent < len(source) and (text := source.description(latent)):
            found[layer, latent] = text
    return found


def matched(dictionaries: Dictionary | Iterable[Dictionary], index: Descriptions) -> list[tuple[Dictionary, Described]]:
    """Each dictionary that the index has, with its source there. ValueError where it has none."""
    given = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    found = [(d, source) for d in given for source in index.sources.values() if _same(d, source)]
    if not found:
        titles = ", ".join(str(s.meta.get("title")) for s in list(index.sources.values())[:4])
        raise ValueError(
            f"the index has none of the graph's dictionaries (it has {titles}): build one of them with diascope train or suite, "
            "or leave --index out"
        )
    return found


def _same(d: Dictionary, source: Described) -> bool:
    if source.meta.get("config") != to_data(d.config):
        return False
    threshold = source.columns.get("threshold")
    return threshold is None or bool(np.allclose(threshold, d.threshold.detach().cpu().numpy(), rtol=1e-5, atol=1e-7))


def promoted(
    graph: Graph, model: Model, dictionaries: Dictionary | Iterable[Dictionary], *, most: int = 3
) -> dict[tuple[int, int], str]:
    """{(layer, latent): "promotes ' cold', ' cool'"} of the graph's latents, by W_U (gain * all that each writes).

    Early latents act through later layers, of which this says nothing.
    """
    frozen = frozen_pass(model, [[int(i) for i in graph.about["token_ids"]]])
    return _named(graph, model, Dictionaries(frozen, dictionaries), most)


@torch.no_grad()
def _named(graph: Graph, model: Model, replacement: Replacement, most: int) -> dict[tuple[int, int], str]:
    ids = latent_ids(graph, replacement)
    nodes = (ids >= 0).nonzero().squeeze(1)
    if not len(nodes):
        return {}
    wrote = torch.stack(list(replacement.written(ids[nodes]).values())).sum(0) * model.final_norm_gain()
    best = torch.full((len(nodes), most), -torch.inf)
    words = torch.zeros(len(nodes), most, dtype=torch.int64)
    for first in range(0, len(model.unembedding), WORDS):
        found = wrote.float() @ model.unembedding[first : first + WORDS].float().t()
        value, index = torch.cat([best, found], 1).topk(most)
        words = torch.where(index < most, words.gather(1, index.clamp_max(most - 1)), index - most + first)
        best = value
    names = {}
    for node, row in zip(nodes.tolist(), words.tolist()):
        names[int(graph.layer[node]), int(graph.index[node])] = "promotes " + ", ".join(
            repr(model.tokenizer.decode([w])) for w in row
        )
    return names
