"""Our graphs against circuit-tracer 0.5.0's (golden files made by tests/oracles/circuits.py; what it leaves out is put right there)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_gemma import KINDS, LATENTS, LAYERS, PROMPT, TOKENS, D, dictionaries, tiny_gemma

from diascope.circuits import Graph, Kind, TopLogits, TraceConfig, influences, prune, scores, trace
from diascope.circuits.graph import COLUMNS, between
from diascope.circuits.replacement import Dictionaries
from diascope.models.frozen import frozen_pass
from diascope.models.model import Model
from diascope.models.toy import byte_tokenizer

FOLDER = Path(__file__).parent / "golden"
T = len(TOKENS)


@pytest.fixture(scope="module")
def model():
    return Model(tiny_gemma(), byte_tokenizer(), "tiny")


@pytest.fixture(scope="module", params=KINDS)
def pair(request, model):
    """(theirs, ours) of one kind of dictionary."""
    whole = TraceConfig(least=0, edge_least=0, tolerance=1e-5)
    return load_file(FOLDER / f"{request.param}.safetensors"), trace(
        model, dictionaries(request.param), list(TOKENS), config=whole
    )


def columns(theirs, ours):
    """Our node for every one of their latents, errors, tokens and logits; -1 where we have none (errors at BOS)."""
    keys = zip(ours.kind.tolist(), ours.layer.tolist(), ours.position.tolist(), ours.index.tolist(), range(len(ours)))
    place = {(kind, layer, position, index): node for kind, layer, position, index, node in keys}
    offset = (
        LATENTS if int(ours.index[ours.kind == Kind.LATENT].max()) >= LATENTS else 0
    )  # in a CLT latents are counted through
    latents = [place[Kind.LATENT, l, p, l * offset + i] for l, p, i in theirs["active"].tolist()]
    errors = [place.get((Kind.ERROR, l, p, -1), -1) for l in range(LAYERS) for p in range(T)]
    tokens = [place[Kind.TOKEN, -1, p, t] for p, t in enumerate(TOKENS)]
    logits = [place[Kind.TARGET, LAYERS, T - 1, t] for t in theirs["logit_tokens"].tolist()]
    return latents, errors, tokens, logits


def close(ours, theirs):
    """To 1e-5 of the largest number."""
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_the_subject_is_the_one_that_they_saw(model, pair):
    theirs, _ = pair
    assert theirs["tokens"].tolist() == list(TOKENS) == model.tokenize(PROMPT)
    with torch.no_grad():
        close(model.module(torch.tensor([TOKENS])).logits[0, -1], theirs["logits"])


def test_nodes_are_theirs(pair):
    theirs, ours = pair
    latents, _, _, logits = columns(theirs, ours)
    assert sorted(latents) == (ours.kind == Kind.LATENT).nonzero().squeeze(1).tolist() and len(latents) > 100
    close(ours.activation[latents], theirs["activation"])
    close(ours.value[latents + logits], theirs["sums"])
    p = theirs["logit_probabilities"]
    assert logits == ours.targets().tolist() and 1 < len(logits) < TopLogits().most
    close(ours.weight[logits], p / p.sum())


def test_edges_are_theirs(pair):
    theirs, ours = pair
    latents, errors, tokens, logits = columns(theirs, ours)
    rows = [i for i, node in enumerate(latents + logits) if node in set(ours.row.tolist())]  # others lead nowhere
    assert len(rows) > 0.6 * len(latents) and rows[-len(logits) :] == list(range(len(latents), len(latents + logits)))
    found = between(ours, [max(e, 0) for e in latents + errors], [(latents + logits)[i] for i in rows])
    at_bos = [len(latents) + i for i, e in enumerate(errors) if e < 0]
    assert at_bos == [len(latents) + l * T for l in range(LAYERS)]
    found[:, at_bos] = 0
    close(found, theirs["edges"][rows, : len(latents) + len(errors)])
    targets = [(latents + logits)[i] for i in rows]
    close(between(ours, tokens, targets), theirs["edges.token"][rows])
    for kind, name in ((Kind.BIAS, "bias"), (Kind.EXCLUDED, "excluded")):
        some = [((ours.kind == kind) & (ours.layer == l)).nonzero().squeeze(1).tolist()[0] for l in range(LAYERS)]
        close(between(ours, some, targets), theirs[f"edges.{name}"][rows])


@pytest.mark.parametrize("kind", KINDS)
def test_error_vectors_are_theirs(model, kind):
    theirs, made = load_file(FOLDER / f"{kind}.safetensors"), Dictionaries(frozen_pass(model, list(TOKENS)), dictionaries(kind))
    errors = torch.stack([made.error(l) for l in range(LAYERS)])
    assert not theirs["error_vectors"][:, 0].any() and errors[:, 0].any()  # they set them to zero at BOS
    close(errors[:, 1:], theirs["error_vectors"][:, 1:])


def test_they_forget_a_factor_of_the_embedding(pair):
    """So that nobody takes our tokens to be wrong: as released, theirs are sqrt(d_model) too small, but for what skips do at BOS."""
    theirs, _ = pair
    released = theirs["edges"][:, -T:]
    close(released[:, 1:] * D**0.5, theirs["edges.token"][:, 1:])


def rebuilt(theirs, name):
    """Their graph in our class, with token edges as released or scaled."""
    n, k = len(theirs["active"]), len(theirs["logit_tokens"])
    A = theirs["edges"].clone()
    if name == "scaled":
        A[:, -T:] = theirs["edges.token"]
    kind = torch.tensor([Kind.LATENT] * n + [Kind.ERROR] * LAYERS * T + [Kind.TOKEN] * T + [Kind.TARGET] * k)
    layer, position, index = torch.zeros(3, len(kind), dtype=torch.int64)
    layer[:n], position[:n], index[:n] = theirs["active"].long().T
    layer[n : n + LAYERS * T] = torch.arange(LAYERS).repeat_interleave(T)
    position[n : n + LAYERS * T] = torch.arange(T).repeat(LAYERS)
    layer[-k - T : -k], position[-k - T : -k], layer[-k:] = -1, torch.arange(T), LAYERS
    row = torch.cat([torch.arange(n), torch.arange(len(kind) - k, len(kind))])
    found = A.nonzero()
    start = torch.cat([torch.zeros(1, dtype=torch.int64), (A != 0).sum(1).cumsum(0)])
    weight, empty = torch.zeros(len(kind)), torch.zeros(len(kind))
    weight[-k:] = theirs["logit_probabilities"]
    total = empty.clone()
    total[row] = A.abs().sum(1)
    known: dict[str, Any] = {
        "kind": kind,
        "layer": layer,
        "position": position,
        "index": index,
        "total": total,
        "weight": weight,
    }
    about = {"tokens": list(map(str, TOKENS)), "targets": [""] * k}
    edges: dict[str, Any] = {"row": row, "start": start, "source": found[:, 1], "edge": A[A != 0], "about": about}
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, empty)
    return Graph(**columns | known | edges)


@pytest.mark.parametrize("name", ["released", "scaled"])
def test_influence_and_scores_of_their_graph_are_theirs(pair, name):
    theirs, _ = pair
    graph = rebuilt(theirs, name)
    close(influences(graph) - graph.weight, theirs[f"{name}.influence"])  # they leave the targets' own out
    found = scores(graph)
    replacement, completeness = theirs[f"{name}.scores"].tolist()
    assert found.replacement == pytest.approx(replacement, rel=1e-5)
    assert found.completeness == pytest.approx(completeness, rel=1e-5)


@pytest.mark.parametrize("name", ["released", "scaled"])
def test_pruning_of_their_graph_is_theirs(pair, name):
    theirs, _ = pair
    graph = rebuilt(theirs, name)
    part = prune(replace(graph, index=torch.arange(len(graph))), node_share=0.8, edge_share=0.98)
    assert part.index.tolist() == theirs[f"{name}.node_mask"].nonzero().squeeze(1).tolist()
    edges = zip(part.index[part.target].tolist(), part.index[part.source].tolist())
    assert sorted(edges) == sorted(map(tuple, theirs[f"{name}.kept_edges"].tolist()))


def test_their_viewers_file_is_of_the_form_we_expect():
    graph = json.loads((FOLDER / "viewer.json").read_text())
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids) and {link[end] for link in graph["links"] for end in ("source", "target")} <= set(ids)
