"""A rounded encoder product only finds candidates: what is active, and its values, are those of the exact one."""

import pytest
import torch

from diascope.dictionaries import BatchTopK, Causal, JumpReLU, TopK
from diascope.training import MemberRecipe, TrainingRecipe
from diascope.training.member import Member


def member(activation, product="bfloat16", several=False):
    sites = ("L0.resid_post", "L1.resid_post") if several else "L1.resid_post"
    recipe = MemberRecipe("m", sites, sites, Causal() if several else MemberRecipe("x").map, d_sae=256, activation=activation,
                          matryoshka=None, l0_target=12.0)  # fmt: skip
    run = TrainingRecipe((recipe,), batch=128, lr=1e-3, l0_warmup=0, decoder_start="he", product=product, theta_start=0.6)
    widths = (32,) * (2 if several else 1)
    m, d = Member(recipe, run, widths, widths, 0), sum(widths)
    x = torch.randn(128, d, generator=torch.Generator().manual_seed(0))
    m.start(torch.ones(d), torch.ones(d), torch.zeros(d), x, x, [])
    return m, x


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("activation", [BatchTopK(12), TopK(12), JumpReLU(bandwidth=0.05)], ids=lambda a: type(a).__name__)
def test_candidates_have_exact_values(activation, several):
    m, x = member(activation, several=several)
    if isinstance(activation, JumpReLU):
        m.params["theta"].fill_(0.3)
    for tensor in (*m.encoders, m.params["b_enc"]):
        tensor.mul_(1 / max(float(e.norm(dim=1).max()) for e in m.encoders))
    near, exact = m.rule.select(m._pres(x, torch.bfloat16), 1.0), m.rule.select(m._pres(x), 1.0)
    assert len(exact.index) > 500
    a, b = near.dense(), exact.dense()
    both = (a > 0) & (b > 0)
    assert torch.allclose(a[both], b[both], atol=1e-6)
    assert float(both.sum() / (b > 0).sum()) > 0.99 and abs(len(near.index) - len(exact.index)) < 0.01 * len(exact.index)


def test_training_with_a_rounded_product_ends_where_the_exact_one_does():
    fvu = {}
    for product in ("float32", "bfloat16"):
        m, x = member(BatchTopK(12), product)
        for step in range(200):
            said = m.step(x, x, step, 200)
        fvu[product] = said.fvu
    assert fvu["float32"] < 0.5 and fvu["bfloat16"] == pytest.approx(fvu["float32"], rel=0.05)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="product is float32 or bfloat16"):
        TrainingRecipe((MemberRecipe("m"),), product="float16")


@pytest.mark.parametrize("several", [False, True])
def test_a_few_rows_at_a_time_find_what_all_at_once_do(several, monkeypatch):
    m, x = member(BatchTopK(12), several=several)
    which = [torch.arange(1, len(e), 3) for e in m.encoders]
    found = []
    for rows in (10**6, 50):
        monkeypatch.setattr("diascope.training.pre_acts.rows_together", lambda width, device, rows=rows: rows)
        pres = m._pres(x)
        pres.ask_aside(which, 5)
        found.append([pres.above(0.3), *pres.aside, pres.largest(7), pres.top(900)[0]])
    for whole, parts in zip(*found, strict=True):
        assert torch.equal(whole.counts, parts.counts) and torch.equal(whole.index, parts.index)
        assert torch.allclose(whole.value, parts.value, atol=1e-5)
    dense = torch.cat([torch.addmm(b.bias, b.x, b.encoder.t()) for b in m._pres(x).blocks], 1)
    above, *aside, largest, top = found[1]
    assert torch.equal(above.dense() > 0, dense > 0.3) and len(top.index) == 900
    assert torch.allclose(top.value.min(), dense.flatten().topk(900).values.min(), atol=1e-5)
    assert torch.allclose(largest.dense().sum(1), dense.clamp_min(0).topk(7, 1).values.sum(1), atol=1e-4)
    for pre, chosen, few in zip(dense.split([len(e) for e in m.encoders], 1), which, aside, strict=True):
        assert torch.allclose(few.dense().sum(1), pre[:, chosen].clamp_min(0).topk(5, 1).values.sum(1), atol=1e-4)
        assert set(few.index.tolist()) <= set(chosen.tolist())
