"""Latents of a hint in a toy model whose answer turns on them: found at the template's tokens, and the margin falls without them."""

import numpy as np
import pytest
import torch
from planted_axes import axes
from planted_behaviour import W, planted_model
from test_audit_cot import Scripted

from diascope.audits import Case, CaseSet
from diascope.audits.engine import run_audit
from diascope.audits.hint_answer import Asked
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Intervention
from diascope.audits.protocols.cot import COT
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.evals.forgetting import ablation

CARRIED = 27  # what the last attention makes of W, and N is read from


def carrying(works=True):
    """q leaves W at every later token (second block), and W at earlier tokens makes N likelier at later ones (last block)."""
    model = planted_model()
    attention = model.module.model.layers[3].self_attn
    letters = {c: model.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "NC"}
    with torch.no_grad():
        model.module.lm_head.weight[:, [W, CARRIED]] = 0
        model.module.lm_head.weight[letters["N"], CARRIED] = 2.0
        attention.v_proj.weight.zero_()
        attention.v_proj.weight[0, W] = 1.0
        attention.o_proj.weight[CARRIED, 0] = 10.0 * works
    return model


def several(copies=4):
    """Each axis by several latents that share what it writes: enough of them for 199 sets of others."""
    d = axes()
    tensors = {"W_enc": d.W_enc.repeat(1, copies), "W_dec": d.W_dec.repeat(copies, 1) / copies, "b_dec": d.b_dec}
    tensors |= {name: getattr(d, name).repeat(copies) for name in ("b_enc", "threshold")}
    config = DictionaryConfig.single("planted", "L1.resid_post", "L1.resid_post", 32, 32, 64 * copies)
    return Dictionary(config, {k: v.detach() for k, v in tensors.items()})


def cases(n=40):
    random, found = np.random.default_rng(0), []
    for i in range(n):
        letters = "".join(random.choice(list("abdefghijk"), 12))
        for label, mark in (("hint", "qqq"), ("plain", "fff"), ("mentioned", "zzz")):
            spans = {"hint": mark} if label == "hint" else {}
            found.append(
                Case(f"{i}-{label}", ({"role": "user", "content": letters + mark},), label, str(i), spans=spans,
                     choices=(" N", " C"), answer=" C", meta={"hinted": "N"})
            )  # fmt: skip
    return CaseSet("made up", tuple(found), "CC0-1.0", "made up")


def follower(works=True):
    target = Scripted(carrying(works), batch=64, rows=256)
    target.answer = lambda case: f"I compare them. So the answer is {'N' if case.label == 'hint' else 'C'}."
    return target


@pytest.fixture(scope="module")
def found():
    (r,) = run_audit(follower(), [COT], several(), cases=cases()).results
    return r


def test_hint_latents_are_found_and_the_answer_turns_on_them(found):
    named = {f.name: f for f in found.findings}
    assert list(named) == ["unsaid hints", "detection", "sparse", "hint latents"] and found.verdict == "detects"
    sparse = named["sparse"].numbers
    assert sparse["latents"][0]["latent"] % 64 in (0, 1) and sparse["auroc"]["value"] == 1.0 and sparse["fidelity"]["passed"]
    assert sparse["fidelity"]["delta_score"]["value"] == pytest.approx(0, abs=1e-3)  # axes give back every vector
    hint = named["hint latents"]
    assert {j % 64 for j in hint.numbers["latents"]} == {0}  # the decoy, latent 1, fires on mentions
    assert hint.numbers["effect"]["low"] > 0.05 and hint.numbers["effect"]["split"] == "test"
    assert hint.numbers["controls"]["k"] >= 199 and hint.numbers["p"] <= 0.01
    assert hint.verdict in ("causal", "causal-but-damaging")


def test_latents_that_are_told_apart_and_do_nothing_are_not_causal():
    (r,) = run_audit(follower(works=False), [COT], several(), cases=cases()).results
    named = {f.name: f for f in r.findings}
    assert named["sparse"].numbers["auroc"]["value"] == 1.0
    assert (
        named["hint latents"].verdict == "not-distinguishable" and abs(named["hint latents"].numbers["effect"]["value"]) < 0.02
    )


def test_no_cause_is_looked_for_where_nothing_is_shown():
    target = follower()
    target.answer = lambda case: "I compare them. So the answer is C."
    (r,) = run_audit(target, [COT], several(), cases=cases()).results
    named = {f.name: f for f in r.findings}
    assert (
        named["hint latents"].verdict == "vacuous"
        and named["hint latents"].why.startswith("not tried")
        and not named["hint latents"].numbers
    )


def test_the_margin_is_the_models_own():
    target = follower()
    (p,) = target.prompts([cases().cases[0]])
    asked = Asked.of(target, p)
    model = target.model
    ids = lambda t: model.tokenizer(t, add_special_tokens=False)["input_ids"]  # noqa: E731
    log_p = model.logits([[*p.tokens, *ids("So the answer is")]])[0, -1].log_softmax(-1)
    own = float(log_p[ids("N")[0]] - log_p[ids("C")[0]])
    assert asked is not None and asked.margin()[0] == pytest.approx(own, abs=1e-4)
    decode = model.tokenizer.decode
    tail = p.tokens[p.spans["hint"].start :]
    kept = [t for t, here in zip((*tail, *ids("So the answer is")), asked.where.tolist(), strict=True) if here]
    assert decode(kept) == "qqq]>"


def test_a_shared_article_is_forced_and_like_beginnings_are_left_out():
    target = follower()
    c = Case("a", ({"role": "user", "content": "abcqqq"},), "hint", "a", spans={"hint": "qqq"}, answer=" a pin", meta={"hinted": "a cup"},
             choices=(" a pin", " a cup"))  # fmt: skip
    (p,) = target.prompts([c])
    asked = Asked.of(target, p)
    assert asked is not None and target.model.tokenizer.decode(list(asked.tails.prompts[0].tokens)).endswith(
        ">So the answer is a"
    )
    assert target.model.tokenizer.decode(list(asked.tokens)) == "cp"
    same = Case(
        "a", c.messages, "hint", "a", spans=c.spans, answer=" a pin", meta={"hinted": "a pet"}, choices=(" a pin", " a pet")
    )
    assert Asked.of(target, target.prompts([same])[0]) is None


def test_without_is_the_ablation_of_forgetting_and_rows_have_sets_of_their_own():
    target, d = follower(), axes()
    prompts = target.prompts(list(cases().of("hint")[:3]))
    sets = [np.array([0, 1]), np.array([5]), np.array([], int)]
    rows = [list(p.tokens) for p in prompts]
    what = OfLatents(d, torch.zeros(d.d_sae), masks(d, sets))
    (edit,), (counted,) = Intervention(what).edits(torch.ones(3, len(rows[0]), dtype=torch.bool))
    with target.model.edit(edit):
        together = target.model.logits(rows)
    for row, latents in enumerate(sets):
        one = ablation(d, latents)
        with target.model.edit(one):
            alone = target.model.logits([rows[row]])[0]
        if len(latents):
            torch.testing.assert_close(together[row, 1:], alone[1:], atol=1e-3, rtol=1e-3)
        else:
            torch.testing.assert_close(together[row], target.model.logits([rows[row]])[0], atol=1e-4, rtol=1e-4)
    assert counted.positions == [3 * len(rows[0])]
