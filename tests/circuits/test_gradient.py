"""Attribution by gradient: against autograd by hand, and sums that must come out."""

import pytest
import torch

from diascope.circuits.gradient import feature_circuit, gradient_scores, logit_difference
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.models.toy import toy_model

PROMPT = torch.tensor([[2, *range(30, 40)]])


@pytest.fixture(scope="module")
def model():
    return toy_model()


def sae(layer, seed=0, d=32, S=48):
    g = torch.Generator().manual_seed(seed + layer)
    tensors = {"W_enc": torch.randn(d, S, generator=g) / d**0.5, "W_dec": torch.randn(S, d, generator=g) / d**0.5,
               "b_enc": torch.randn(S, generator=g) * 0.1, "b_dec": torch.randn(d, generator=g) * 0.1,
               "threshold": torch.full((S,), 0.2)}  # fmt: skip
    return Dictionary(DictionaryConfig.single("toy", f"L{layer}.resid_post", f"L{layer}.resid_post", d, d, S), tensors)


def test_a_score_is_the_first_order_effect_of_ablating(model):
    d, metric = sae(1), logit_difference(model, 50, 60)
    (s,) = gradient_scores(model, [d], PROMPT, metric)
    i = int(s.score.abs().argmax())
    site, step = s.site, 1e-2
    from diascope.edits import Edit

    def less(_, y):
        y = y.clone()
        y[0, s.position[i]] -= step * s.activation[i] * d.W_dec[s.index[i]]
        return y

    before = metric(model.logits(PROMPT)[:, -1])
    with model.edit(Edit(site, site, less)):
        after = metric(model.logits(PROMPT)[:, -1])
    assert float((before - after) / step) == pytest.approx(float(s.score[i]), rel=0.05)
    assert 0 not in s.position.tolist() and float(s.error[0]) == 0  # BOS is left out


def test_integrated_scores_sum_to_what_the_dictionary_does(model):
    d, metric = sae(1), logit_difference(model, 50)
    (s,) = gradient_scores(model, [d], PROMPT, metric, method="integrated", steps=128)
    from diascope.edits import Edit

    before = metric(model.logits(PROMPT)[:, -1])
    with model.edit(Edit(s.site, s.site, lambda _, y: d.b_dec.expand_as(y))):
        after = metric(model.logits(PROMPT)[:, -1])
    assert float(s.score.sum() + s.error.sum()) == pytest.approx(float(before - after), rel=2e-2, abs=2e-3)


def test_a_circuit_has_edges_upwards_that_are_effects(model):
    given, metric = [sae(0), sae(2)], logit_difference(model, 50, 60)
    c = feature_circuit(model, given, PROMPT, metric, nodes=40)
    assert len(c.nodes) == 40 and c.edges
    assert all(c.nodes[s][0] == 0 and c.nodes[t][0] == 1 for s, t, _ in c.edges)
    s, t, weight = max((e for e in c.edges if c.nodes[e[0]][2] >= 0), key=lambda e: abs(e[2]))
    (_, q, j), (_, p, k) = c.nodes[s], c.nodes[t]
    from diascope.edits import Edit

    x0 = model.capture(PROMPT, "L0.resid_post")["L0.resid_post"][0, q]
    a, step = given[0].encode(x0[None]).dense()[0, j], 1e-2

    def less(_, y):
        y = y.clone()
        y[0, q] -= step * a * given[0].W_dec[j]
        return y

    def pre():
        return float(model.capture(PROMPT, "L2.resid_post")["L2.resid_post"][0, p] @ given[1].W_enc[:, k])

    before = pre()
    site = given[0].site_out
    with model.edit(Edit(site, site, less)):
        change = (before - pre()) / step
    latents = gradient_scores(model, given, PROMPT, metric)[1]
    at = int(((latents.position == p) & (latents.index == k)).nonzero()[0])
    slope = float(latents.score[at] / latents.activation[at])
    assert weight == pytest.approx(slope * change, rel=0.1, abs=1e-5)


def test_bad_input_says_what_to_do(model):
    metric = logit_difference(model, 3)
    with pytest.raises(ValueError, match="gradient or integrated"):
        gradient_scores(model, [sae(0)], PROMPT, metric, method="shapley")
    with pytest.raises(ValueError, match="two dictionaries write one site"):
        gradient_scores(model, [sae(0), sae(0)], PROMPT, metric)
