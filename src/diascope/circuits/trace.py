"""Trace a prompt: from what the model is about to say down to the tokens, the targets first, then layer by layer.

1. Freeze one forward pass; encode what the MLPs read; what is left over are errors.
2. Edges into the targets. A row is complete at once, so its shares are exact, and with them the influence of each source.
3. From the last layer down: every latent whose influence is at least `least` becomes a target itself. All that it
   influences has been counted by then, so this choice is exact, not an estimate that is made again every few batches.
4. Edges of less than `edge_least` of their row go into the row's `rest`. The graph is refused where a row does not close.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.circuits.attribute import Start, Sweep
from diascope.circuits.graph import Graph
from diascope.circuits.influence import scores
from diascope.circuits.neurons import Neurons
from diascope.circuits.nodes import Nodes, nodes_of
from diascope.circuits.replacement import Dictionaries, Replacement, dictionaries_hash
from diascope.circuits.targets import Rows, Target, TokenTarget, TopLogits, rows_of, token_id
from diascope.config import config_hash
from diascope.dictionaries import Dictionary
from diascope.models.frozen import FrozenPass, frozen_pass
from diascope.models.model import Model
from diascope.storage.files import commit_file

NEURONS = "neurons"
TOP = TopLogits()


@dataclass(frozen=True)
class TraceConfig:
    """How much of a graph to compute and keep."""

    least: float = 1e-4
    """A latent's inputs are computed where at least this share of the targets' influence passes through it."""
    edge_least: float = 1e-4
    """An edge is kept by itself where it is at least this share of the sum of |edges| into its target."""
    window: int = 0
    """Positions before the end that are nodes of their own; earlier ones enter as constants. 0: all."""
    tolerance: float = 1e-4
    """Largest difference between a node's value and the sum of its edges, over the sum of |edges|; more is refused."""
    chunk: int = 0
    """Targets swept together; 0: as many as 64 MB hold."""


@dataclass
class _Found:
    """Rows as they come: expanded nodes and what enters them."""

    row: list[Tensor] = field(default_factory=list)
    count: list[Tensor] = field(default_factory=list)
    source: list[Tensor] = field(default_factory=list)
    edge: list[Tensor] = field(default_factory=list)
    total: list[Tensor] = field(default_factory=list)
    rest: list[Tensor] = field(default_factory=list)
    residual: list[Tensor] = field(default_factory=list)

    def add(self, rows: Tensor, value: Tensor, edges: Tensor, least: float) -> None:
        """Keep dense rows of edges [n, sources]."""
        size = edges.abs()
        total = size.sum(1).double()
        keep = size > least * total[:, None].to(edges)
        all_of = edges.sum(1, dtype=torch.float64)
        kept = torch.where(keep, edges, 0)
        where = keep.nonzero()
        found = {"row": rows, "count": keep.sum(1), "source": where[:, 1].int(), "edge": edges[keep], "total": total}
        found |= {"rest": (edges - kept).sum(1).double(), "residual": value.double() - all_of}
        for name, tensor in found.items():
            getattr(self, name).append(tensor)

    def joined(self) -> dict[str, Tensor]:
        """Each column as one tensor."""
        return {name: torch.cat(getattr(self, name)) for name in self.__dataclass_fields__}


def trace(
    model: Model,
    dictionaries: Dictionary | Iterable[Dictionary] | str,
    prompt: Any,
    *,
    target: Target = TOP,
    config: TraceConfig = TraceConfig(),
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    parts: str | Path | None = None,
) -> Graph:
    """The attribution graph of one prompt.

    `dictionaries`: one transcoder a layer, a cross-layer transcoder, or "neurons" for the MLPs' own (the baseline).
    `parts`: a folder in which finished layers are kept, so that the same call goes on where it was interrupted.
    Raises ValueError for what does not fit, and RuntimeError where a row does not close.
    """
    _check(config)
    frozen = frozen_pass(model, prompt)
    if config.window:
        frozen = frozen.window(config.window)
    if isinstance(dictionaries, str):
        if dictionaries != NEURONS:
            raise ValueError(f'dictionaries are transcoders, a cross-layer transcoder, or "{NEURONS}", not {dictionaries!r}')
        replacement, given = Neurons(frozen), []
    else:
        given = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
        replacement = Dictionaries(frozen, given)
    rows = rows_of(target, frozen, replacement)
    nodes = nodes_of(frozen, replacement, len(rows.names))
    sweep = Sweep(frozen, replacement, nodes)
    about = _about(frozen, given, replacement, rows, target, config)
    found, influence = _swept(sweep, rows, config, _Parts(parts, about["identity"]), progress)
    return _graph(frozen, nodes, replacement, rows, found, influence, about, config)


def _check(config: TraceConfig) -> None:
    for name in ("least", "edge_least"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} is a share from 0 to below 1, got {getattr(config, name)}")
    if not config.tolerance > 0:
        raise ValueError(f"the tolerance is positive, got {config.tolerance}")
    if config.window < 0 or config.chunk < 0:
        raise ValueError(f"window and chunk are 0 or more, got {config.window} and {config.chunk}")


def _swept(
    sweep: Sweep, rows: Rows, config: TraceConfig, parts: _Parts, progress: Callable[[int, int, str], None]
) -> tuple[_Found, Tensor]:
    """Every row that is worth having, and the influence of all nodes [N]."""
    frozen, nodes, latents = sweep.frozen, sweep.nodes, sweep.replacement.latents
    found, influence = _Found(), torch.zeros(len(nodes), dtype=torch.float64)
    first = nodes.sources

    def expand(start: Start, numbers: Tensor, value: Tensor) -> None:
        edges = sweep.edges(start)
        found.add(numbers, value, edges, config.edge_least)
        size = edges.abs()
        share = (influence[numbers] / size.sum(1).clamp_min(1e-30)).to(edges)
        influence[: nodes.sources] += (share @ size).double()

    n = len(rows.names)
    numbers = torch.arange(first, first + n)
    influence[numbers] = rows.weight.double()
    places = torch.full((n,), rows.position)
    expand(Start(rows.covectors, places, rows.layer, rows.middle, rows.constant), numbers, rows.value)
    L = frozen.n_layers
    for layer in range(L - 1, -1, -1):
        mine = latents.of_layer(layer)
        columns = nodes.latent_column[mine]
        chosen = (influence[columns] >= max(config.least, 1e-300)).nonzero().squeeze(1)
        if len(chosen) and (kept := parts.load(layer)) is not None:
            for name, tensor in kept.items():
                getattr(found, name).append(tensor) if name != "influence" else influence.copy_(tensor)
        elif len(chosen):
            before, ids = len(found.row), mine.start + chosen
            size = config.chunk or sweep.chunk(int(latents.position[ids].max()) + 1)
            for some in ids.split(size):
                expand(sweep.of_latents(some), nodes.latent_column[some], latents.value[some])
            parts.save(layer, found, before, influence)
        progress(L - layer, L, f"{sum(map(len, found.row)) - n:,} of {len(latents):,} latents expanded")
    return found, influence


class _Parts:
    """Finished layers of an unfinished graph, by the identity of what is traced."""

    def __init__(self, folder: str | Path | None, identity: str) -> None:
        self.folder = None if folder is None else Path(folder) / identity

    def load(self, layer: int) -> dict[str, Tensor] | None:
        path = None if self.folder is None else self.folder / f"{layer}.safetensors"
        return None if path is None or not path.exists() else load_file(path)

    def save(self, layer: int, found: _Found, first: int, influence: Tensor) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: torch.cat(getattr(found, name)[first:]) for name in _Found.__dataclass_fields__}
        with commit_file(self.folder / f"{layer}.safetensors") as work:
            save_file(tensors | {"influence": influence}, work)


def _graph(
    frozen: FrozenPass, nodes: Nodes, replacement: Replacement, rows: Rows, found: _Found, influence: Tensor,
    about: dict[str, Any], config: TraceConfig,
) -> Graph:  # fmt: skip
    N, latents, got = len(nodes), replacement.latents, found.joined()
    missing = torch.full((N,), torch.nan, dtype=torch.float64)
    order = torch.argsort(got["row"])
    columns = {}
    for name in ("total", "rest", "residual"):
        columns[name] = missing.clone().index_put_((got["row"],), got[name]).float()
    activation, value, weight = missing.clone(), missing.clone(), torch.zeros(N)
    activation[nodes.latent_column] = latents.activation.double()
    value[nodes.latent_column] = latents.value.double()
    activation[nodes.sources :] = value[nodes.sources :] = rows.value.double()
    weight[nodes.sources :] = rows.weight.float()
    index, position, layer = nodes.index.clone(), nodes.position.clone(), nodes.layer.clone()
    index[nodes.sources :] = torch.tensor(rows.tokens)
    position[nodes.sources :], layer[nodes.sources :] = rows.position, rows.layer
    position = torch.where(position >= 0, position + frozen.first, position)
    begin = torch.cat([torch.zeros(1, dtype=torch.int64), got["count"].cumsum(0)])
    pieces = torch.cat([torch.arange(int(begin[i]), int(begin[i + 1])) for i in order.tolist()])
    start = torch.cat([torch.zeros(1, dtype=torch.int64), got["count"][order].cumsum(0)])
    graph = Graph(
        nodes.kind, layer, position, index, activation.float(), value.float(), columns["total"], columns["rest"],
        columns["residual"], weight, influence.float(), missing.float(), missing.float(), got["row"][order], start, got["source"][pieces].long(),
        got["edge"][pieces], about,
    )  # fmt: skip
    closure = graph.closure()
    if not closure <= config.tolerance:
        worst = int(graph.row[(graph.residual[graph.row].abs() / graph.total[graph.row]).argmax()])
        raise RuntimeError(
            f"the graph does not close: the edges into {graph.name(worst)} miss its value by {closure:.1e} of their sum "
            f"(at most {config.tolerance:g}): this is a defect of the trace, or numbers too large for {frozen.residuals.dtype}"
        )
    about |= {"closure": closure, "latents": len(latents), "expanded": len(graph.row) - len(rows.names)}
    about |= {"scores": vars(scores(graph))}
    return graph


def _about(
    frozen: FrozenPass, given: list[Dictionary], replacement: Replacement, rows: Rows, target: Target, config: TraceConfig
) -> dict[str, Any]:
    model, ids = frozen.model, [*frozen.earlier, *map(int, frozen.tokens)]
    about: dict[str, Any] = {
        "model": model.name, "dtype": str(frozen.residuals.dtype).removeprefix("torch."), "token_ids": ids, "first": frozen.first,
        "tokens": [model.tokenizer.decode([t]) for t in ids], "layers": frozen.n_layers, "latents_are": replacement.names,
        "first_latents": replacement.firsts, "dictionaries": dictionaries_hash(given) if given else NEURONS,
        "targets": rows.names, "probabilities": [float(w) for w in rows.weight], "target": type(target).__name__,
        "frozen_map_distance": frozen.distance, "pass": _hash(frozen.residuals), "rows": _hash(rows.covectors),
    }  # fmt: skip
    if isinstance(target, TokenTarget) and target.against is not None:
        about["against"] = token_id(frozen, target.against)
    about["options"] = {name: getattr(config, name) for name in ("least", "edge_least", "window", "tolerance")}
    same = ("token_ids", "first", "dictionaries", "pass", "rows", "options")
    about["identity"] = config_hash({k: about[k] for k in same} | {"at": [rows.position, rows.layer, rows.tokens]})
    return about


def _hash(tensor: Tensor) -> str:
    """Hash of a tensor's bytes: the residuals of a pass stand for the model's weights and the prompt."""
    return hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
