"""The heaviest supernode's trial: what its header says is what the model does."""

import json

import numpy as np
import pytest
import torch
from planted import PROMPT, transcoders

from diascope.circuits import Graph, Kind, prune, trace, verify
from diascope.circuits import supernodes as module
from diascope.circuits.effects import predicted
from diascope.circuits.supernodes import Trial, in_words, supernodes, tried, tried_heaviest
from diascope.circuits.verify import subject_of
from diascope.circuits.viewer_json import from_viewer, to_viewer
from diascope.edits import Edit
from diascope.models.toy import toy_model
from diascope.sites import Site


@pytest.fixture(scope="module")
def model():
    m = toy_model()
    m.module.double()
    return m


@pytest.fixture(scope="module")
def graph(model):
    return verify(trace(model, transcoders(skip=True), PROMPT), model, transcoders(skip=True), sample=20, draws=40)


def number(graph, key):
    layer, position, index = key
    found = (graph.kind == Kind.LATENT) & (graph.layer == layer) & (graph.position == position) & (graph.index == index)
    return int(found.nonzero())


def test_the_header_has_what_taking_the_supernode_away_does(model, graph, tmp_path):
    told, made = graph.about["verification"]["supernode"], transcoders(skip=True)
    nodes = [number(graph, key) for key in told["latents"]]
    small = prune(graph)
    assert [small.name(n) for n in supernodes(small)[0]] == [graph.name(n) for n in nodes] == told["names"]
    assert told["influence"] == pytest.approx(float(graph.influence[nodes].sum()), rel=1e-3)  # by the edges that were kept
    assert told["predicted"] == pytest.approx(float(predicted(graph)[1][nodes].sum()))

    def less(layer):
        """By hand: what its members write, taken from what the MLP writes."""

        def function(_, y):
            y = y.clone()
            for n, (l, position, index) in zip(nodes, told["latents"]):
                if l == layer:
                    y[0, position] -= float(graph.activation[n]) * made[layer].W_dec[index]
            return y

        return Edit(s := Site(layer, "mlp_out"), s, function, special=True)

    before = model.logits(torch.tensor([PROMPT]))[0, -1]
    with model.edit(*(less(layer) for layer in range(4))):
        after = model.logits(torch.tensor([PROMPT]))[0, -1]
    change, token = after - before, int(graph.index[graph.targets()[0]])
    assert told["effect"] == pytest.approx(float(change[token] - change.mean()), rel=1e-4)
    again = Graph.load(graph.save(tmp_path / "g"))
    assert again.about["verification"]["supernode"] == told


def test_the_controls_are_told(model, graph):
    told, small = graph.about["verification"]["supernode"], prune(graph)
    trial = tried(small, subject_of(graph, model, transcoders(skip=True)), supernodes(small)[0], draws=40)
    assert told["controls"] == 40 == len(trial.controls) and told["control_95"] == float(np.quantile(trial.controls, 0.95))
    assert told["exceeds"] == (abs(told["effect"]) > told["control_95"]) and told["beats"] == trial.beats
    assert ("NO MORE than" in told["says"]) != told["exceeds"]


def test_the_95th_percentile_decides():
    assert not Trial([0, 1], -2.0, [1.0] * 94 + [3.0] * 6, 0.94).exceeds
    assert Trial([0, 1], -2.0, [1.0] * 96 + [3.0] * 4, 0.96).exceeds


def test_a_supernode_without_controls_is_passed_over_and_said(model, graph, monkeypatch):
    small = prune(graph)
    subject, good = subject_of(graph, model, transcoders(skip=True)), supernodes(small)[0]
    whole, latents = graph, (graph.kind == Kind.LATENT).nonzero().squeeze(1)
    cell = latents[(graph.layer[latents] == 2) & (graph.position[latents] == 5)].tolist()  # leaves nothing beside itself
    monkeypatch.setattr(module, "supernodes", lambda small: [cell, [number(graph, _key(small, n)) for n in good]])
    trial = tried_heaviest(whole, subject, draws=20)
    assert trial is not None and trial.passed_over == 1 and "that has controls" in in_words(whole, whole, trial)["says"]
    monkeypatch.setattr(module, "supernodes", lambda small: [cell])
    assert tried_heaviest(whole, subject, draws=20) is None
    assert in_words(whole, whole, None) == {"says": "no supernode was tried: none has matched controls for all its members"}


def _key(graph, n):
    return [int(c[n]) for c in (graph.layer, graph.position, graph.index)]


def test_it_can_be_left_out_and_too_few_controls_are_refused(model, graph):
    made = transcoders(skip=True)
    assert "supernode" not in verify(graph, model, made, sample=20, draws=0).about["verification"]
    with pytest.raises(ValueError, match="at least 20 controls, not 5"):
        verify(graph, model, made, sample=20, draws=5)


def test_the_viewers_json_has_it(graph):
    data = json.loads(json.dumps(to_viewer(graph, slug="toy")))
    told = graph.about["verification"]["supernode"]
    assert data["metadata"]["info"]["supernode"] == told["says"]
    (group,) = data["qParams"]["supernodes"]
    assert {tuple(map(int, name.split("_"))) for name in group[1:]} == {(l, i, p) for l, p, i in told["latents"]}
    assert len(from_viewer(data)["supernodes"][0]) == len(told["latents"])
