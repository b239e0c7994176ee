"""Latents at places of prompts against a plain float64 computation, and special tokens, which no dictionary reads or edits."""

import numpy as np
import pytest
import torch
from planted_axes import axes
from planted_behaviour import planted_cases, planted_model

from diascope.audits.encoded import encoded
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Along, Intervention, Plus
from diascope.audits.target import Tails, Target
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.sites import Site

PLACES = ["last", "last-1", "request"]


def across(d):
    """The same weights, reading one site and giving back another."""
    tensors = {name: getattr(d, name).detach() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    return Dictionary(DictionaryConfig.single("toy", "L1.resid_post", "L2.resid_post", 32, 32, d.d_sae), tensors)


def target_with(special):
    """A target whose tokens of the letters `special` are special, and prompts of it."""
    model = planted_model()
    ids = model.tokenizer(special, add_special_tokens=False)["input_ids"]
    model.special_ids = model.special_ids | set(ids)
    target = Target(model, batch=3)
    return target, target.prompts(planted_cases().cases[:7]), set(ids)


def expected(target, prompts, d, ids, place):
    """By loops: mean latents [n, S], mean squared errors [n], and the target vectors of each prompt's tokens."""
    latents, missed, targets = [], [], []
    for p in prompts:
        seen = target.model.capture([list(p.tokens)], list(d.sites))
        x, wanted = (seen[site][0].float() for site in (d.site_in, d.site_out))
        tokens = [t for t in range(len(p.tokens))[p.place(place)] if p.tokens[t] not in ids]
        f = [d.encode(x[t][None]) for t in tokens]
        y = [d.decode(a, x[t][None])[0].double().numpy() for a, t in zip(f, tokens, strict=True)]
        real = [wanted[t].double().numpy() for t in tokens]
        latents.append(np.mean([a.dense()[0].double().numpy() for a in f], 0))
        missed.append(np.mean([np.square(a - b).sum() for a, b in zip(real, y, strict=True)]))
        targets.append(real)
    return np.array(latents), np.array(missed), targets


def about(targets, centre):
    return np.array([np.mean([np.square(v - centre).sum() for v in of_one]) for of_one in targets])


def test_a_place_has_the_mean_of_its_ordinary_tokens_latents(make_dictionary):
    target, prompts, ids = target_with("e")  # inside requests
    d = across(make_dictionary())
    assert any(set(p.tokens[p.spans["request"]]) & ids for p in prompts)
    found = encoded(target, prompts, d, PLACES)
    assert found.left_out == () and list(found.latents) == PLACES and found.rows == 7 * 3
    every = {p: expected(target, prompts, d, ids, p) for p in PLACES}
    for place, (latents, _, _) in every.items():
        np.testing.assert_allclose(found.latents[place].toarray(), latents, atol=1e-4)
    missed = sum(m.sum() for _, m, _ in every.values())
    means = {p: np.array([np.mean(t, 0) for t in targets]) for p, (_, _, targets) in every.items()}
    centre = np.concatenate(list(means.values())).mean(0)
    fvu = missed / sum(about(t, centre).sum() for _, _, t in every.values())
    within = {p: m.sum() / about(t, means[p].mean(0)).sum() for p, (_, m, t) in every.items()}
    assert found.fvu == pytest.approx(fvu, rel=1e-5) and found.within == pytest.approx(within, rel=1e-5)
    assert found.within["last"] > found.fvu > 0  # places differ
    some = encoded(target, prompts, d, PLACES, np.arange(7) < 4)
    assert some.rows == 4 * 3 and (some.latents["last"] != found.latents["last"]).nnz == 0


def test_a_place_that_is_a_special_token_is_left_out():
    target, prompts, _ = target_with("]")
    found = encoded(target, prompts, axes(), PLACES)
    assert found.left_out == ("last-1",) and list(found.latents) == ["last", "request"]
    target, prompts, _ = target_with("]>")
    found = encoded(target, prompts, axes(), ["last", "last-1"])  # nothing else to read
    assert found.left_out == () and list(found.latents) == ["last", "last-1"]


def test_an_edit_of_latents_leaves_special_tokens_alone_and_one_of_a_direction_does_not():
    d = axes()
    read = lambda log_p, _: log_p  # noqa: E731
    ends = {}
    for special in ("", "]>"):  # ordinary, or all of the tail
        target, prompts, _ = target_with(special)
        tails = Tails(target, prompts)
        latents = Intervention(OfLatents(d, torch.full((d.d_sae,), 3.0), masks(d, [range(d.d_sae)])))
        direction = Intervention(Along(torch.ones(32), Plus(3.0)), (Site(1, "resid_post"),))
        ends[special] = [torch.equal(tails.read(read, [edit]), tails.read(read)) for edit in (latents, direction)]
    assert ends == {"": [False, False], "]>": [True, False]}
