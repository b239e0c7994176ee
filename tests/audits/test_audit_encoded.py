"""Latents at places of prompts against a plain float64 computation, and special tokens, which no dictionary reads or edits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_axes import axes
from planted_behaviour import planted_cases, planted_model

from diascope.audits.control_tokens import Control
from diascope.audits.encoded import encoded
from diascope.audits.hint_answer import Asked
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Whole
from diascope.audits.spans import ordinary_tail
from diascope.audits.suppressed import at_the_tail
from diascope.audits.target import Target
from diascope.audits.two_models import firing
from diascope.dictionaries import Dictionary, DictionaryConfig

PLACES = ["last", "last-1", "request"]


def across(d, read="L1.resid_post", write="L2.resid_post"):
    """The same weights at other sites."""
    tensors = {name: getattr(d, name).detach() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    return Dictionary(DictionaryConfig.single("toy", read, write, 32, 32, d.d_sae), tensors)


def target_with(special):
    """A target whose tokens of the letters `special` are special, and prompts of it."""
    model = planted_model()
    ids = model.tokenizer(special, add_special_tokens=False)["input_ids"]
    model.special_ids = model.special_ids | set(ids)
    target = Target(model, batch=3)
    return target, target.prompts(planted_cases().cases[:7]), set(ids)


def expected(target, prompts, d, ids, place):
    """By loops: mean latents [n, S], then of each prompt's tokens errors and target vectors, and how many latents fire on one."""
    latents, errors, targets, counts = [], [], [], []
    for p in prompts:
        seen = target.model.capture([list(p.tokens)], list(d.sites))
        x, wanted = (seen[site][0].float() for site in (d.site_in, d.site_out))
        tokens = [t for t in range(len(p.tokens))[p.place(place)] if p.tokens[t] not in ids]
        f = [d.encode(x[t][None]) for t in tokens]
        y = [d.decode(a, x[t][None])[0].double().numpy() for a, t in zip(f, tokens, strict=True)]
        real = [wanted[t].double().numpy() for t in tokens]
        latents.append(np.mean([a.dense()[0].double().numpy() for a in f], 0))
        errors.append([a - b for a, b in zip(real, y, strict=True)])
        targets.append(real)
        counts.append(np.mean([int((a.dense() > 0).sum()) for a in f]))
    return np.array(latents), errors, targets, counts


def about(targets, centre):
    return np.array([np.mean([np.square(v - centre).sum() for v in of_one]) for of_one in targets])


def test_a_place_has_the_mean_of_its_ordinary_tokens_latents(make_dictionary):
    target, prompts, ids = target_with("e")  # inside requests
    d = across(make_dictionary())
    assert any(set(p.tokens[p.spans["request"]]) & ids for p in prompts)
    found = encoded(target, prompts, d, PLACES)
    assert found.left_out == () and list(found.latents) == PLACES and found.missed.size == 7 * 3
    every = {p: expected(target, prompts, d, ids, p) for p in PLACES}
    for place, (latents, *_) in every.items():
        np.testing.assert_allclose(found.latents[place].toarray(), latents, atol=1e-4)
    assert found.l0 == pytest.approx(np.mean([counts for *_, counts in every.values()]), rel=1e-6)
    assert_fidelity(found, every, slice(None))
    some = encoded(target, prompts, d, PLACES, np.arange(7) < 4)
    assert some.missed.size == 4 * 3 and (some.latents["last"] != found.latents["last"]).nnz == 0
    assert_fidelity(some, every, slice(4))


def assert_fidelity(found, every, cases):
    """FVU about the mean of all places, and by place about its own means, of `cases`."""
    errors, targets = ({p: of[k][cases] for p, of in every.items()} for k in (1, 2))
    mean = lambda vectors: np.mean([np.mean(v, 0) for v in vectors], 0)  # noqa: E731
    centre = np.mean([mean(t) for t in targets.values()], 0)
    missed = sum(about(e, 0.0).sum() for e in errors.values())
    assert found.fvu == pytest.approx(missed / sum(about(t, centre).sum() for t in targets.values()), rel=1e-5)
    within = {p: about(errors[p], mean(errors[p])).sum() / about(targets[p], mean(targets[p])).sum() for p in PLACES}
    assert found.within == pytest.approx(within, rel=1e-5)


def test_an_error_that_all_cases_share_loses_nothing_of_what_differs():
    target, prompts, _ = target_with("")
    d = axes()
    tensors = {name: getattr(d, name).detach() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    off = Dictionary(d.config, tensors | {"b_dec": d.b_dec.detach() + 1.0})
    found = encoded(target, prompts, off, PLACES)
    assert found.fvu > 0.01 and max(found.within.values()) < 1e-6
    same = encoded(target, prompts, across(d, "L0.resid_pre", "L0.resid_pre"), ["last"])  # the template's token by itself
    assert np.isnan(same.within["last"])


def test_a_place_that_is_a_special_token_is_left_out():
    target, prompts, _ = target_with("]")
    found = encoded(target, prompts, axes(), PLACES)
    assert found.left_out == ("last-1",) and list(found.latents) == ["last", "request"]
    target, prompts, _ = target_with("]>")
    found = encoded(target, prompts, axes(), ["last", "last-1"])  # nothing else to read
    assert found.left_out == () and list(found.latents) == ["last", "last-1"]


def test_edits_leave_the_tails_special_tokens_alone():
    found = {}
    for special in ("", "]", "]>"):
        target, prompts, _ = target_with(special)
        found[special] = ordinary_tail(target.model, prompts).tolist()
    assert found == {"": [True, True], "]": [False, True], "]>": [True, True]}  # one has to be left
    at, g = torch.tensor([False, True]), torch.Generator().manual_seed(0)
    d, y = axes(), torch.randn(2, 5, 32, generator=g)
    latents = OfLatents(d, torch.full((d.d_sae,), 3.0), masks(d, [range(d.d_sae)]), at)
    for shift in (latents.shift(y, y), Whole(torch.zeros_like(y), torch.arange(5) > 3).shift(y, y)):
        assert shift[:, -1].abs().amax(-1).min() > 0 and not shift[:, :-1].any()
    assert torch.equal(latents.shift(y[:, -1:], y[:, -1:]), latents.shift(y, y)[:, -1:])  # a shorter pass ends there, too


def test_a_hint_is_ablated_at_ordinary_tokens():
    target, _, _ = target_with("]")
    case = planted_cases().cases[0]
    hinted = replace(
        case, spans={"hint": case.messages[-1]["content"][-3:]}, choices=(" N", " C"), answer=" C", meta={"hinted": "N"}
    )
    (p,) = target.prompts([hinted])
    asked = Asked.of(target, p)
    assert asked is not None
    start = p.spans["hint"].start
    marked = {start + i for i in torch.nonzero(asked.where)[:, 0].tolist()}
    assert marked == {*range(start, start + 3), len(p.tokens) - 1}  # "]" comes before the last


def test_latents_at_the_tail_and_at_control_tokens_are_those_of_ordinary_tokens():
    target, prompts, ids = target_with("]")
    d = axes()
    mean, _ = at_the_tail(target, prompts, d)
    last = expected(target, prompts, d, ids, "last")[0]
    np.testing.assert_allclose(mean, last, atol=1e-4)  # "]" is the tail's other token
    parts = np.array(["test"] * len(prompts))
    asked = Control.of(target.model, prompts, ["e"] * len(prompts), parts, np.arange(len(prompts)))
    for special, tokens in ((True, 3), (False, 2)):
        for _, (seen,) in asked.vectors(target, [d.site_in], special=special):
            assert {len(x) for x in seen} == {tokens}


def test_two_models_are_compared_on_ordinary_tokens():
    target, prompts, ids = target_with("e")
    d = axes()
    found = firing(target, target, prompts, d)
    for g, name in enumerate(found.groups):
        fired = []
        for p in (p for p in prompts if p.case.group == name):
            x = target.model.capture([list(p.tokens)], [d.site_in])[d.site_in][0].float()
            fired += [d.encode(x[t][None]).dense()[0].numpy() > 0 for t in range(1, len(p.tokens)) if p.tokens[t] not in ids]
        np.testing.assert_allclose(found.rates[0][g], np.mean(fired, 0), atol=1e-6)
