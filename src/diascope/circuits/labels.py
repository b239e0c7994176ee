"""A first name for latents that nobody has described: the tokens that what they write promotes, straight to the logits."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diascope.circuits.effects import latent_ids
from diascope.circuits.graph import Graph
from diascope.circuits.replacement import Dictionaries, Replacement
from diascope.dictionaries import Dictionary
from diascope.models.frozen import frozen_pass
from diascope.models.model import Model

WORDS = 16_384  # rows of the unembedding at a time


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
