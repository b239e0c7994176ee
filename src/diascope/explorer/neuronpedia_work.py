"""What Neuronpedia's interface asks of the model's thread: the latents of a text, and a new graph. Imported when first asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diascope.circuits import Graph, TraceConfig, trace
from diascope.circuits.targets import TopLogits
from diascope.circuits.trace import NEURONS
from diascope.circuits.viewer_json import to_viewer
from diascope.dictionaries import Dictionary
from diascope.models.model import Model

LONGEST = 512  # tokens of a text that is read
LONGEST_GRAPH = 64  # tokens of a prompt that is traced, as the site


@dataclass(frozen=True)
class Read:
    """A text as the model reads it, and what is active at each token, by source: (latent, activation), strongest first."""

    tokens: list[str]
    special: list[bool]
    active: dict[str, list[list[tuple[int, float]]]]

    @property
    def opens(self) -> bool:
        """Whether the first token is the one that opens a text, and no part of it."""
        return bool(self.special) and self.special[0]


def read(opened: Any, sources: list[str], text: str) -> Read:
    """The latents of `sources` on `text`, in one pass. Special tokens have none: dictionaries are not trained on them.

    Raises ValueError for a text that is too long, and a source whose dictionary is not open.
    """
    model, dictionaries = opened
    if missing := [s for s in sources if s not in dictionaries]:
        raise ValueError(f"the dictionary of {missing[0]} is not in this workspace, only its index")
    ids = model.tokenize(_without_opening(model, text))
    if len(ids) > LONGEST:
        raise ValueError(f"the text has {len(ids):,} tokens; the limit is {LONGEST}")
    seen = model.capture([ids], list(dict.fromkeys(site for s in sources for site in dictionaries[s].config.reads)))
    ordinary = seen.mask[0].tolist()
    active = {s: _active(dictionaries[s], seen, ordinary) for s in sources}
    return Read([model.tokenizer.decode([i]) for i in ids], [not o for o in ordinary], active)


def _active(d: Dictionary, seen: Any, ordinary: list[bool]) -> list[list[tuple[int, float]]]:
    latents, out = d.encode(d.inputs(seen)[0]), []
    for t, counts in enumerate(ordinary):
        here = slice(int(latents.start[t]), int(latents.start[t + 1]))
        pairs = zip(latents.index[here].tolist(), latents.value[here].tolist(), strict=True)
        out.append(sorted(pairs, key=lambda pair: -pair[1]) if counts else [])
    return out


def _without_opening(model: Model, text: str) -> str:
    """The text without the token that opens it, which the tokenizer puts there itself."""
    return text.removeprefix(getattr(model.tokenizer, "bos_token", None) or "")


def traced(
    opened: Any, prompt: str, folder: Path, *, share: float, most: int, node_share: float, edge_share: float,
    progress: Callable[[int, int, str], None],
) -> dict[str, int]:  # fmt: skip
    """Trace `prompt` into the graph folder `folder`, through the transcoders that are open, or the MLPs' own neurons.

    Gives how many nodes and links the pruned graph has. Raises ValueError for a prompt that is too long.
    """
    model, dictionaries = opened
    text = _without_opening(model, prompt)
    if len(ids := model.tokenize(text)) > LONGEST_GRAPH:
        raise ValueError(f"the prompt has {len(ids)} tokens; the limit is {LONGEST_GRAPH}")
    target = TopLogits(share, most)
    graph = trace(model, tracers(model, dictionaries), text, target=target, config=TraceConfig(), progress=progress)
    graph.save(folder)
    found = to_viewer(graph, slug=folder.name, node_share=node_share, edge_share=edge_share)
    return {"nodes": len(found["nodes"]), "links": len(found["links"])}


def tracers(model: Model, dictionaries: dict[str, Dictionary]) -> list[Dictionary] | str:
    """The dictionaries that a graph is made of: one cross-layer transcoder, else a transcoder for every layer, else neurons.

    Of several transcoders of a layer the first by name is taken.
    """
    ordered = [d for _, d in sorted(dictionaries.items())]
    reading = [d for d in ordered if all(s.kind == "mlp_in" for s in d.config.reads)]
    whole = [d for d in reading if len({s.layer for s in d.config.reads}) == model.n_layers]
    if whole:
        return whole[:1]
    by_layer: dict[int, Dictionary] = {}
    for d in reading:
        if d.config.kind == "transcoder" and [s.kind for s in d.config.writes] == ["mlp_out"]:
            by_layer.setdefault(d.config.reads[0].layer, d)
    return [by_layer[layer] for layer in sorted(by_layer)] if len(by_layer) == model.n_layers else NEURONS


def viewer_json(folder: Path, *, node_share: float, edge_share: float) -> dict[str, Any]:
    """The graph in `folder` in the viewers' schema. ValueError where it is damaged."""
    return to_viewer(Graph.load(folder), slug=folder.name, node_share=node_share, edge_share=edge_share)
