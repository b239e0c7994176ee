"""Latents that fall over pairs, with the search paid for; and giving a set of them back, many sets in one pass."""

import numpy as np
import pytest
import torch
from planted_axes import axes
from planted_behaviour import planted_cases, planted_model

from diascope.audits import Target
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Intervention
from diascope.audits.suppressed import at_the_tail, falls


def test_a_latent_that_falls_in_all_pairs_is_found_among_many():
    random = np.random.default_rng(0)
    change = random.normal(size=(20, 500))
    change[:, 7] = -np.abs(random.normal(1.0, 0.3, 20))
    change[:, 8] = np.abs(random.normal(1.0, 0.3, 20))  # rises
    change[:, 9] = 0.0
    found = falls(change)
    assert found.p_family[7] == 1 / 1000 and int(found.statistic.argmax()) == 7
    assert found.p_family[8] == found.p_family[9] == 1.0 and found.statistic[9] == 0.0
    assert np.delete(found.p_family, 7).min() > 0.05


def test_a_fall_alike_in_all_pairs_has_the_statistic_one():
    found = falls(np.array([[-2.0, -1.0], [-2.0, 3.0], [-2.0, -1.0]]))
    np.testing.assert_allclose(found.statistic, [1.0, (2 - 3) / 3 / np.sqrt(11 / 3)])


def test_under_the_null_the_search_errs_no_more_often_than_it_says():
    """200 sets of 30 correlated latents that go either way; 5 % would be 10."""
    random = np.random.default_rng(1)
    hits = 0
    for number in range(200):
        common = random.normal(size=(12, 1))
        hits += falls(common + random.normal(size=(12, 30)), draws=199, seed=number).p_family.min() <= 0.05
    assert hits <= 19  # P(more | 0.05) < 0.005


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_each_row_has_its_own_set_at_what_is_wanted_and_all_else_stays(make_dictionary, kind):
    d = make_dictionary(kind=kind, skip=kind == "transcoder")
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 5, 32, generator=g) * 3 for _ in range(2))
    wanted = torch.rand(d.d_sae, generator=g)
    sets = [[3, 11], [5, 0]]
    f = d.encode(x).dense()
    error = y - d.decode(d.encode(x), x)
    changed = f.clone()
    for row in range(4):
        changed[row][:, sets[row % 2]] = wanted[sets[row % 2]]
    skip = x @ d.W_skip if d.config.skip else 0
    edit = OfLatents(d, wanted, masks(d, sets))
    assert torch.allclose(y + edit.shift(x, y), changed @ d.W_dec + d.b_dec + skip + error, atol=1e-4)
    directions = torch.randn(4, 32, generator=g)
    random = OfLatents(d, wanted, masks(d, sets[:1]), along=directions).shift(x, y)
    own = OfLatents(d, wanted, masks(d, sets[:1])).shift(x, y)
    assert torch.allclose(random.norm(dim=-1), own.norm(dim=-1), atol=1e-4)  # as far
    assert torch.allclose(torch.cosine_similarity(random, directions[:, None], dim=-1), torch.ones(4, 5), atol=1e-4)
    with pytest.raises(ValueError, match="4 rows cannot share 3 sets"):
        OfLatents(d, wanted, masks(d, [[0], [1], [2]])).shift(x, y)
    at = torch.tensor([True, False, False, True, False])
    some = OfLatents(d, wanted, masks(d, sets), at).shift(x, y)
    assert torch.equal(some[:, at], edit.shift(x, y)[:, at]) and not some[:, ~at].any()
    each = wanted * torch.tensor([1.0, 2.0])[:, None, None].expand(2, 5, 1)  # another value for every prompt
    of_prompts = OfLatents(d, each, masks(d, sets)).shift(x, y)
    assert torch.allclose(of_prompts[:2], edit.shift(x, y)[:2], atol=1e-5)
    assert torch.allclose(of_prompts[2:], OfLatents(d, 2 * wanted, masks(d, sets)).shift(x, y)[2:], atol=1e-5)


def test_the_masked_tokens_of_the_prompt_are_edited_and_no_decode_step(make_dictionary):
    d = make_dictionary()
    g = torch.Generator().manual_seed(0)
    y, where = torch.randn(1, 4, 32, generator=g), torch.tensor([[False, False, True, True]])
    what = OfLatents(d, torch.ones(d.d_sae), masks(d, [[2]]))
    (edit,), (counted,) = Intervention(what, when=("prompt",)).edits(where)
    out = edit.function(y, y)
    assert torch.equal(out[:, :2], y[:, :2]) and not torch.allclose(out[:, 2:], y[:, 2:])
    step = torch.randn(1, 1, 32, generator=g)
    assert torch.equal(edit.function(step, step), step)
    assert counted.positions == [2, 0]


def test_latents_at_the_tail_are_those_of_the_templates_last_tokens():
    target, d = Target(planted_model(), batch=3), axes()
    prompts = target.prompts(planted_cases().cases[:5])
    mean, rate = at_the_tail(target, prompts, d)
    for row, p in enumerate(prompts):
        f = d.encode(target.model.capture([list(p.tokens)], [d.site_in])[d.site_in][0, -p.tail :].float()).dense()
        np.testing.assert_allclose(mean[row], f.mean(0), atol=1e-4)
        np.testing.assert_allclose(rate[row], (f > 0).float().mean(0), atol=1e-6)
