"""Graphs compared and put together; supernodes; the viewers' JSON."""

import json

import pytest
import torch
from planted import PROMPT, clt, transcoders

from diascope.circuits import Kind, TraceConfig, prune, trace, verify
from diascope.circuits.effects import latent_ids
from diascope.circuits.several import difference, in_common, keyed
from diascope.circuits.supernodes import _control, supernodes, tried
from diascope.circuits.verify import subject_of
from diascope.circuits.view import view
from diascope.circuits.viewer_json import from_viewer, read_viewer, to_viewer, write_viewer
from diascope.models.toy import toy_model


@pytest.fixture(scope="module")
def model():
    m = toy_model()
    m.module.double()
    return m


@pytest.fixture(scope="module")
def graph(model):
    return verify(trace(model, transcoders(), PROMPT), model, transcoders(), sample=30)


def test_flow_into_a_node_is_what_its_influence_is(graph):
    nodes, edges = keyed(graph, positions=True)
    key = next(k for k in nodes if k[0] == "latent" and nodes[k] > 1e-3)
    leaving = sum(v for (s, _), v in edges.items() if s == key)
    assert leaving == pytest.approx(nodes[key], rel=1e-4)


def test_a_graph_has_all_in_common_with_itself_and_nothing_changed(graph):
    nodes, edges = in_common([graph, graph])
    assert nodes[0].graphs == 2 and edges[0].graphs == 2 and nodes[0].mean >= nodes[-1].mean
    assert all(c.change == 0 for c in difference(graph, graph)[0])
    with pytest.raises(ValueError, match="at least two"):
        in_common([graph])


def test_what_a_changed_model_does_otherwise_comes_first(model, graph):
    other = toy_model()
    other.module.double()
    with torch.no_grad():
        W = other.parts.blocks[1].self_attn.o_proj.weight
        W.copy_(W.flip(0))
    after = trace(other, transcoders(), PROMPT)
    nodes, edges = difference(graph, after)
    assert abs(nodes[0].change) > 1e-3 and edges and {c.key[0][3] for c in nodes} >= {0, 5}  # by position
    other = trace(model, clt(), PROMPT)
    with pytest.raises(ValueError, match="other dictionaries"):
        difference(graph, other)
    with pytest.raises(ValueError, match="other dictionaries"):
        in_common([graph, other])


def test_latents_alike_are_grouped_and_others_are_not(model, graph):
    small = prune(graph)
    groups = supernodes(small)
    assert groups and all(len(g) > 1 and set(small.kind[g].tolist()) == {Kind.LATENT} for g in groups)
    assert len({n for g in groups for n in g}) == sum(map(len, groups))
    weights = [float(small.influence[g].sum()) for g in groups]
    assert weights == sorted(weights, reverse=True)
    assert len(supernodes(small, alike=0.999)) < len(groups)
    with pytest.raises(ValueError, match="prune it first"):
        supernodes(graph)
    subject = subject_of(graph, model, transcoders())
    trial = tried(small, subject, groups[0], draws=20)
    assert len(trial.controls) == 20 and trial.beats == sum(c < abs(trial.effect) for c in trial.controls) / 20
    latents, ids = subject.replacement.latents, latent_ids(small, subject.replacement)[groups[0]]
    control = _control(subject, ids, set(ids.tolist()), 8, 0, 3)
    assert len(set(control.tolist())) == len(ids) and not set(control.tolist()) & set(ids.tolist())
    assert (latents.layer[control] == latents.layer[ids]).all() and (latents.position[control] == latents.position[ids]).all()
    again = tried(small, subject_of(graph, model, transcoders()), groups[0], draws=20)
    assert again.controls == trial.controls


def test_the_viewers_json_goes_out_and_comes_in(graph, tmp_path):
    path = write_viewer(graph, tmp_path / "toy.json")
    data = json.loads(path.read_text())
    ids = [n["node_id"] for n in data["nodes"]]
    assert len(set(ids)) == len(ids) and {e["source"] for e in data["links"]} <= set(ids)
    assert sum(n["is_target_logit"] for n in data["nodes"]) == 1
    latent = next(n for n in data["nodes"] if n["feature_type"] == "cross layer transcoder")
    layer, index, position = map(int, latent["node_id"].split("_"))
    assert latent["feature"] == (layer + index) * (layer + index + 1) // 2 + index and latent["ctx_idx"] == position
    back, ours = read_viewer(path), view(graph)
    assert len(back["nodes"]) == len(ours["nodes"]) and len(back["edges"]) == len(ours["edges"])
    assert sorted(e[2] for e in back["edges"]) == sorted(e[2] for e in ours["edges"])
    assert {n["kind"] for n in back["nodes"]} == {n["kind"] for n in ours["nodes"]}


def test_a_window_and_a_clt_go_through_the_viewers_json(model):
    g = trace(model, clt(), PROMPT, config=TraceConfig(window=5))
    data = to_viewer(g, slug="w")
    back, ours = from_viewer(data), view(g)
    assert [n["kind"] for n in back["nodes"]] == [n["kind"] for n in ours["nodes"]]
    assert all(n["position"] is None for n in back["nodes"] if n["kind"] in ("bias", "earlier"))
    latent = [int(n["node_id"].split("_")[1]) for n in data["nodes"] if n["feature_type"] == "cross layer transcoder"]
    assert latent and max(latent) < 64  # counted within its layer
    assert data["metadata"]["prompt"] == "".join(model.tokenizer.decode([t]) for t in PROMPT)


def test_a_damaged_viewers_json_says_what_is_wrong(graph):
    data = to_viewer(graph, slug="x")
    with pytest.raises(ValueError, match="lacks links"):
        from_viewer({k: v for k, v in data.items() if k != "links"})
    with pytest.raises(ValueError, match="is no node"):
        from_viewer(data | {"links": [{"source": "E_1_1", "target": "nowhere", "weight": 1.0}]})


def test_what_circuit_tracer_wrote_can_be_opened():
    from pathlib import Path

    found = read_viewer(Path(__file__).parent / "golden" / "viewer.json")
    assert {"token", "latent", "target"} <= {n["kind"] for n in found["nodes"]} and found["edges"]


def test_a_planted_path_is_found_and_a_decoy_is_not(model):
    """The first target's direction is written by one latent at the last token; a decoy writes as much, elsewhere."""
    made = transcoders()
    from diascope.models.frozen import frozen_pass

    frozen = frozen_pass(model, PROMPT)
    last = len(PROMPT) - 1
    d = made[3]
    active = d.encode(frozen.mlp_in[3][last : last + 1]).index.tolist()
    true, decoy = active[0], active[1]
    U = model.unembedding.double()
    toward = (U[40] - U.mean(0)) * (1 + model.parts.trunk.norm.weight.detach().double())
    side = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    side -= (side @ toward) / (toward @ toward) * toward
    with torch.no_grad():
        d.W_dec[true] = 5 * toward / toward.norm()
        d.W_dec[decoy] = 5 * side / side.norm()
    from diascope.circuits import TokenTarget

    g = trace(model, made, PROMPT, target=TokenTarget(40), config=TraceConfig(tolerance=1e-5))
    at = {
        int(g.index[n]): n
        for n in ((g.kind == Kind.LATENT) & (g.layer == 3) & (g.position == last)).nonzero().squeeze(1).tolist()
    }
    ranks = g.influence[list(at.values())].argsort(descending=True).tolist()
    order = [list(at)[i] for i in ranks]
    assert order[0] == true and order.index(decoy) > len(order) // 2
