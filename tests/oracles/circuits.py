"""circuit-tracer's graphs against ours: the oracle behind tests/circuits/golden and docs/oracles.md.

    .venv/bin/python tests/oracles/circuits.py ours WORK                         # in diascope's environment
    PEER/bin/python tests/oracles/circuits.py theirs WORK tests/circuits/golden    # in an environment with circuit-tracer==0.5.0

1. `ours` writes the tiny Gemma 3 of tests/circuits/tiny_gemma.py as a checkpoint, and transcoders, skip-transcoders and a CLT in
   circuit-tracer's layout, through our own export.
2. `theirs` attributes the same tokens with circuit-tracer as released, and then twice more with other vectors in the place of its
   error and token vectors (CORRECTIONS), so that its own backward pass computes the edges that it leaves out.
3. It prints how far each graph is from closing, and stores nodes, edges (as released and put right), influence, pruning and scores.
   It ends with 1 where the graph that was put right does not close.

circuit-tracer's nnsight backend, since the other one loads only models that TransformerLens has by name, and gives all layers of
Gemma 3 the last layer's rotary embedding. circuits_real.py beside it does the same on real models.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch
from safetensors.torch import save_file
from torch import Tensor

BATCH, NODES, EDGES = 32, 0.8, 0.98  # targets a backward pass; what pruning keeps of the influence of nodes and of edges
VIEW = 0.7, 0.7  # the same for viewer.json: small, and without two nodes of one id, which their ids allow
CLOSES = 1e-5  # residual of a node, relative to the sum of |incoming edges|


# -- ours
def ours(work: Path) -> None:
    """Write the checkpoint, the three folders of dictionaries and the tokens."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))
    from tiny_gemma import KINDS, TOKENS, dictionaries, tiny_gemma

    from diascope.models.toy import byte_tokenizer

    module: Any = tiny_gemma()
    module.save_pretrained(work / "model")
    byte_tokenizer().save_pretrained(work / "model")
    for_older_transformers(work / "model")
    for kind in KINDS:
        export(dictionaries(kind), work / kind)
    (work / "tokens.json").write_text(json.dumps({"tokens": TOKENS, "kinds": KINDS}))
    print(f"wrote {work}: {', '.join(KINDS)}")


def export(dictionaries: list[Any], folder: Path) -> None:
    """Write one transcoder a layer, or a CLT, as one set in circuit-tracer's layout."""
    from diascope.dictionaries import save_dictionary

    folder.mkdir(parents=True, exist_ok=True)
    for d in dictionaries:
        alone = save_dictionary(d, folder / "alone", format="circuit-tracer", overwrite=True)
        for file in alone.iterdir():
            if file.name not in ("sha256.json", "probe.safetensors"):  # of one layer only
                file.replace(folder / file.name)
        shutil.rmtree(alone)


def for_older_transformers(folder: Path) -> None:
    """transformers 4.57 knows neither version 5's rope_parameters nor its name for a tokenizer without a class."""
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    c = json.loads(config.read_text())
    by_kind = c.get("rope_parameters") or {}
    if "full_attention" in by_kind:
        c |= {"rope_theta": by_kind["full_attention"]["rope_theta"]}
        c |= {"rope_local_base_freq": by_kind["sliding_attention"]["rope_theta"]}
        scaled = {k: v for k, v in by_kind["full_attention"].items() if k != "rope_theta"}
        c["rope_scaling"] = scaled if scaled.get("rope_type", "default") != "default" else None
    elif "rope_theta" in by_kind:
        c["rope_theta"] = by_kind["rope_theta"]
    config.write_text(json.dumps(c, indent=1))
    t = json.loads(tokenizer.read_text())
    t.pop("backend", None)
    t.pop("extra_special_tokens", None)
    tokenizer.write_text(json.dumps(t | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=1))


# -- theirs: loading
def load(model: str, folder: Path, *, lazy: bool = False) -> Any:
    """circuit-tracer's replacement model: float32, on the processor, transcoders from a folder in its layout."""
    import yaml
    from circuit_tracer.replacement_model import ReplacementModel
    from circuit_tracer.transcoder.cross_layer_transcoder import load_clt
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set

    config = yaml.safe_load((folder / "config.yaml").read_text())
    files = sorted(folder.glob("layer_*.safetensors"), key=lambda f: int(f.stem.rpartition("_")[2]))
    given: dict[str, Any] = {k: config[k] for k in ("feature_input_hook", "feature_output_hook")}
    given |= {
        "scan": "oracle",
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "lazy_encoder": False,
        "lazy_decoder": lazy,
    }
    if config["model_kind"] == "cross_layer_transcoder":
        found = load_clt(str(folder), **given)
    else:
        found = load_transcoder_set(dict(enumerate(map(str, files))), **given)
    return ReplacementModel.from_pretrained_and_transcoders(model, found, backend="nnsight", device=torch.device("cpu"))


def transcoders(model: Any) -> Any:
    """The TranscoderSet or CrossLayerTranscoder itself, which nnsight wraps."""
    return getattr(model.transcoders, "_module", model.transcoders)


def biases(model: Any, name: str) -> Tensor:
    """b_enc or b_dec of every layer, (L, ...)."""
    found = transcoders(model)
    return (getattr(found, name) if hasattr(found, name) else torch.stack([getattr(t, name) for t in found])).detach()


# -- theirs: what it leaves out or gets wrong, each put right by itself
def scaled_tokens(model: Any, context: Any) -> Tensor:
    """Token vectors as the residual stream gets them: Gemma's embedding multiplies by sqrt(d_model), their rows lack it."""
    return context.token_vectors * getattr(model._model.get_input_embeddings(), "embed_scale", 1.0)


def decoder_biases(model: Any, context: Any) -> Tensor:
    """b_dec wherever a dictionary runs: they count it to the reconstruction and give it no node."""
    there = biases(model, "b_dec")[:, None].expand_as(context.error_vectors).clone()
    there[:, model.zero_positions] = 0
    return there


def excluded_outputs(model: Any, context: Any) -> Tensor:
    """MLP outputs at positions where no dictionary runs (BOS), which they set to zero; zero elsewhere."""
    excluded, kind = model.zero_positions, type(transcoders(model))
    plain = kind.compute_attribution_components
    without = mock.patch.object(
        kind, "compute_attribution_components", lambda self, x, _: plain(self, x, zero_positions=excluded)
    )
    try:
        model.zero_positions = slice(0, 0)  # which setup_attribution sets to zero last
        with without:
            errors = type(model).setup_attribution.plain(model, context.tokens).error_vectors
    finally:
        model.zero_positions = excluded
    there = torch.zeros_like(errors)
    there[:, excluded] = errors[:, excluded] + biases(model, "b_dec")[:, None]
    return there


CORRECTIONS: dict[str, Callable[[Any, Any], Tensor]] = {"bias": decoder_biases, "excluded": excluded_outputs}


@contextmanager
def no_skip_at(excluded: slice) -> Iterator[None]:
    """No skip connection at excluded positions: they leave latents, bias and error of the dictionary out there, but not its skip."""
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder

    plain = SingleLayerTranscoder.compute_skip

    def compute_skip(self: Any, x: Tensor) -> Tensor:
        runs = torch.ones(x.shape[-2], 1)
        runs[excluded] = 0
        return plain(self, x) * runs

    with mock.patch.object(SingleLayerTranscoder, "compute_skip", compute_skip):
        yield


@contextmanager
def vectors(model: Any, change: Callable[[Any, Any], None]) -> Iterator[None]:
    """Let `change(model, context)` alter what setup_attribution returns."""
    kind = type(model)
    plain = kind.setup_attribution

    def setup(self: Any, tokens: Tensor) -> Any:
        context = plain(self, tokens)
        context.tokens = tokens
        change(self, context)
        return context

    setup.plain = plain  # type: ignore[attr-defined]
    with mock.patch.object(kind, "setup_attribution", setup):
        yield


# -- theirs: a graph and all that the golden file holds of it
def theirs(work: Path, golden: Path) -> int:
    asked = json.loads((work / "tokens.json").read_text())
    worst = 0.0
    for kind in asked["kinds"]:
        model = load(str(work / "model"), work / kind)
        found, graph = attributed(model, torch.tensor(asked["tokens"]))
        if kind == "transcoder":
            for_viewer(graph, work, golden / "viewer.json")
        save_file({k: v.contiguous() for k, v in found.items()}, golden / f"{kind}.safetensors")
        worst = max(worst, told(kind, found))
    return int(worst > CLOSES)


def attributed(model: Any, tokens: Tensor) -> tuple[dict[str, Tensor], Any]:
    """Nodes, edges as released, edges put right, the values that incoming edges must sum to, influence, pruning and scores; and
    their graph."""
    graph, context = traced(model, tokens)
    L, T = context.error_vectors.shape[:2]
    n, k = len(graph.active_features), len(graph.logit_targets)
    rows = torch.cat([torch.arange(n), n + L * T + T + torch.arange(k)])
    found = {}
    with no_skip_at(model.zero_positions):
        for name, of in CORRECTIONS.items():
            again = traced(model, tokens, of)[0].adjacency_matrix[rows]
            found[f"edges.{name}"] = again[:, n : n + L * T].unflatten(1, (L, T)).sum(2)
    found["edges.token"] = again[:, n + L * T : n + L * T + T]
    found |= {
        "tokens": tokens,
        "active": graph.active_features.int(),
        "activation": graph.activation_values.detach(),
        "error_vectors": context.error_vectors,
        "logits": context.logits[0, -1],
        "logit_tokens": graph.logit_token_ids,
        "logit_probabilities": graph.logit_probabilities,
        "edges": graph.adjacency_matrix[rows][:, : n + L * T + T],
        "sums": sums(model, graph, context),
    }
    other = with_tokens(graph, rows, n + L * T, found["edges.token"])
    return found | scored("released", graph) | scored("scaled", other), graph


def traced(model: Any, tokens: Tensor, of: Callable[[Any, Any], Tensor] | None = None, **options: Any) -> tuple[Any, Any]:
    """circuit-tracer's graph and its context; with `of`, a correction's vectors stand for errors, and tokens are scaled."""
    from circuit_tracer import attribute

    seen: list[Any] = []

    def change(model: Any, context: Any) -> None:
        seen.append(context)
        if of is not None:
            context.error_vectors, context.token_vectors = of(model, context), scaled_tokens(model, context)

    with vectors(model, change):
        graph = attribute(tokens, model, **{"batch_size": BATCH, **options})
    return graph, seen[0]


def for_viewer(graph: Any, work: Path, file: Path) -> None:
    """The JSON that their viewer opens, of a graph pruned enough to be small."""
    from circuit_tracer.utils import create_graph_files

    create_graph_files(graph, "the-the", str(work / "viewer"), node_threshold=VIEW[0], edge_threshold=VIEW[1])
    written = json.loads((work / "viewer" / "the-the.json").read_text())
    file.write_text(json.dumps(written, separators=(",", ":")) + "\n")


def sums(model: Any, graph: Any, context: Any) -> Tensor:
    """What the edges into each node must sum to: the pre-activation less b_enc, the logit less the mean logit."""
    layer, position, index = graph.active_features.T
    _, before = model.get_activations(graph.input_tokens, apply_activation_function=False)
    last = context.logits[0, -1]
    read = before[layer, position, index] - biases(model, "b_enc")[layer, index]
    return torch.cat([read, last[graph.logit_token_ids] - last.mean()])


def with_tokens(graph: Any, rows: Tensor, start: int, edges: Tensor) -> Any:
    """The same graph with other edges from its token nodes, which begin at column `start`."""
    from copy import copy

    other, A = copy(graph), graph.adjacency_matrix.clone()
    A[rows, start : start + edges.shape[1]] = edges
    other.adjacency_matrix = A
    return other


def scored(name: str, graph: Any) -> dict[str, Tensor]:
    """Influence of every node, what pruning keeps, and (replacement, completeness), by circuit-tracer's own functions."""
    from circuit_tracer.graph import compute_graph_scores, compute_node_influence, prune_graph

    weights = torch.zeros(len(graph.adjacency_matrix))
    weights[-len(graph.logit_targets) :] = graph.logit_probabilities
    pruned = prune_graph(graph, NODES, EDGES)
    return {
        f"{name}.influence": compute_node_influence(graph.adjacency_matrix, weights),
        f"{name}.cumulative": pruned.cumulative_scores,
        f"{name}.node_mask": pruned.node_mask,
        f"{name}.kept_edges": pruned.edge_mask.nonzero().to(torch.int16),
        f"{name}.scores": torch.tensor(compute_graph_scores(graph), dtype=torch.float64),
    }


def told(kind: str, found: dict[str, Tensor]) -> float:
    """Print how far the graph is from closing, as released and corrected; the largest residual of the corrected one."""
    edges, n = found["edges"].double(), len(found["active"])
    tokens = len(found["tokens"])
    errors = edges.shape[1] - n - tokens
    kept = edges[:, : n + errors]
    parts = {
        "as released": [edges],
        "tokens scaled": [kept, found["edges.token"]],
        "and biases": [kept, found["edges.token"], found["edges.bias"]],
        "and excluded outputs": [kept, found["edges.token"], found["edges.bias"], found["edges.excluded"]],
    }
    print(f"{kind}: {n} latents, {errors} errors, {tokens} tokens, {len(edges) - n} logits")
    residual = torch.zeros(())
    for name, some in parts.items():
        incoming = torch.cat([p.double() for p in some], 1)
        residual = (incoming.sum(1) - found["sums"]).abs() / incoming.abs().sum(1)
        print(f"  {name}: residual at most {residual.max():.1e} of the sum of |incoming edges|, median {residual.median():.1e}")
    for name in ("released", "scaled"):
        replacement, completeness = found[f"{name}.scores"].tolist()
        print(f"  {name}: replacement {replacement:.4f}, completeness {completeness:.4f}")
    return float(residual.max())


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        ours(Path(sys.argv[2]))
    else:
        sys.exit(theirs(Path(sys.argv[2]), Path(sys.argv[3])))
