"""Interventions: what they do is what they say, and predictions that must come true do."""

from dataclasses import replace

import pytest
import torch
from planted import PROMPT, exact_gpt2, transcoders

from diascope.circuits import LatentTarget, TokenTarget, TraceConfig, prune, trace, verify
from diascope.circuits.effects import MODES, latent_ids, measured, predicted
from diascope.circuits.graph import Graph
from diascope.circuits.verify import Unverifiable, agreement, subject_of
from diascope.models.toy import toy_model

WHOLE = TraceConfig(least=0, edge_least=0, tolerance=1e-5)


@pytest.fixture(scope="module")
def exact():
    return exact_gpt2()


def test_without_error_small_interventions_do_what_the_paths_say(exact):
    model, made = exact
    g = trace(model, made, PROMPT, config=WHOLE)
    assert g.about["scores"]["replacement"] > 1 - 1e-6
    subject = subject_of(g, model, made)
    ids = latent_ids(g, subject.replacement)
    nodes = (g.influence > 1e-3).logical_and(ids >= 0).nonzero().squeeze(1)
    step = 1e-5  # so small that no latent switches on or off
    found = measured(
        subject.frozen,
        subject.replacement,
        subject.covectors[:1],
        [ids[n : n + 1] for n in nodes],
        [1 - step] * len(nodes),
        "norms frozen",
    )
    total = predicted(g)[1][nodes]
    assert len(nodes) > 50
    torch.testing.assert_close(found[:, 0] / step, total, rtol=1e-3, atol=1e-6)
    assert agreement(predicted(g)[0][nodes], total)["spearman"] < 0.99  # paths through other latents count


def test_an_ablation_is_what_the_model_does_without_the_latent(exact):
    """By hand: the neuron's output weight set to zero at one position is the same as its activation taken away."""
    model, made = exact
    g = trace(model, made, PROMPT, target=TokenTarget(40), config=WHOLE)
    subject = subject_of(g, model, made)
    found = subject.replacement.latents
    latent = int((found.layer == 2).nonzero()[3])
    effect = measured(subject.frozen, subject.replacement, subject.covectors, [torch.tensor([latent])], [0.0], "free")
    p, j = int(found.position[latent]), int(found.index[latent])
    mlp, before = model.parts.blocks[2].mlp, model.logits(torch.tensor([PROMPT]))[0, -1]

    def without(module, args, output):
        output = output.clone()
        output[:, p, j] = 0
        return output

    handle = mlp.act.register_forward_hook(without)
    after = model.logits(torch.tensor([PROMPT]))[0, -1]
    handle.remove()
    change = after - before
    assert float(effect[0, 0]) == pytest.approx(float(change[40] - change.mean()), rel=1e-6)


def test_verification_is_kept_with_the_graph(tmp_path):
    model = toy_model()
    model.module.double()
    made = transcoders(skip=True)
    g = verify(trace(model, made, PROMPT), model, made, sample=40)
    about = g.about["verification"]
    assert about["latents"] == 40 == int(torch.isfinite(g.measured).sum())
    assert {(r["edit"], r["mode"]) for r in about["rows"]} == {(e, m) for e in ("ablate", "double") for m in MODES}
    assert {r["guess"] for r in about["rows"]} == {"total", "direct", "activation x gradient", "random"}
    gradient = next(r for r in about["rows"] if r["guess"] == "activation x gradient" and r["mode"] == "free")
    assert gradient["spearman"] > 0.5  # a random model is smooth: its own gradient knows
    again = Graph.load(g.save(tmp_path / "g"))
    assert again.about["verification"] == about
    assert {r["of"]: r["n"] for r in about["rows"]} == {"strongest": 20, "others": 20}
    strongest = torch.isfinite(g.measured) & (g.influence >= g.influence[torch.isfinite(g.measured)].sort().values[20])
    assert int(strongest.sum()) == 20


def test_the_header_says_whether_edges_predict(exact):
    model, made = exact
    g = trace(model, made, PROMPT)
    subject = subject_of(g, model, made)
    assert "its edges predict" in verify(g, model, made, sample=100).about["verification"]["says"]
    backwards = replace(g, edge=-g.edge)  # a graph that has every sign wrong
    assert "DO NOT PREDICT" in verify(backwards, model, made, sample=100).about["verification"]["says"]
    nothing = measured(
        subject.frozen, subject.replacement, subject.covectors, [torch.zeros(0, dtype=torch.int64)] * 3, [0.0] * 3, "free"
    )
    for mode in MODES:
        still = measured(
            subject.frozen, subject.replacement, subject.covectors, [torch.zeros(0, dtype=torch.int64)] * 3, [0.0] * 3, mode
        )
        assert still.shape == nothing.shape and float(still.abs().max()) < 1e-9


def test_a_guess_of_nothing_is_not_called_a_prediction():
    torch.manual_seed(0)
    row = agreement(torch.randn(200), torch.randn(200))
    assert row["spearman_low"] < 0 < row["spearman_high"] and 0.4 < row["sign"] < 0.6
    perfect = agreement(torch.arange(50.0) - 20, torch.arange(50.0) - 20)
    assert perfect["spearman"] == pytest.approx(1) and perfect["sign"] == 1


def test_what_cannot_be_verified_says_so():
    model = toy_model()
    model.module.double()
    made = transcoders()
    g = trace(model, made, PROMPT)
    with pytest.raises(ValueError, match="other dictionaries"):
        verify(g, model, transcoders(seed=5))
    with pytest.raises(ValueError, match="without a window"):
        verify(trace(model, made, PROMPT, config=TraceConfig(window=4)), model, made)
    with pytest.raises(Unverifiable, match="only 0 latents"):
        verify(g, model, made, least=1.0)
    with pytest.raises(ValueError, match="at least 16 latents, not 3"):
        verify(g, model, made, sample=3)
    with pytest.raises(ValueError, match="before it is pruned"):
        verify(prune(g), model, made)
    with model.edit(transcoders()[1].float().ablate(3)), pytest.raises(ValueError, match="trace outside"):
        trace(model, made, PROMPT)
    latent = trace(model, made, PROMPT, target=LatentTarget(2, int(g.index[(g.layer == 2) & (g.kind == 1)][-1])))
    with pytest.raises(ValueError, match="only logits"):
        verify(latent, model, made)
